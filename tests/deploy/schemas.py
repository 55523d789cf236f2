"""Schemas of custom resources, as far as deploy/k8s uses them: nothing else may be set.

Written after the definitions that their projects publish (`config/crd/bases` of kedacore/keda and
rabbitmq/cluster-operator), and what KEDA's scalers of RabbitMQ and Prometheus read.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}


def _only(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def _resource(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = _only({"name": _TEXT}, namespace=_TEXT, labels={"type": "object"})
    known = {"apiVersion": {"const": version}, "kind": {"const": kind}}
    return _only({**known, "metadata": metadata, "spec": spec})


def _trigger(kind: str, required: list[str], optional: list[str]) -> dict[str, Any]:
    metadata = _only(dict.fromkeys(required, _TEXT), **dict.fromkeys(optional, _TEXT))
    return _only(
        {"type": {"const": kind}, "metadata": metadata},
        name=_TEXT,
        metricType={"enum": ["AverageValue", "Value"]},
        authenticationRef=_only({"name": _TEXT}, kind=_TEXT),
    )


_SCALED_OBJECT = _only(
    {
        "scaleTargetRef": _only({"name": _TEXT}, apiVersion=_TEXT, kind=_TEXT),
        "triggers": {
            "type": "array",
            "minItems": 1,
            "items": {
                "oneOf": [
                    _trigger(
                        "rabbitmq",
                        ["queueName", "mode", "value"],
                        [
                            *("protocol", "host", "hostFromEnv", "vhostName", "activationValue"),
                            *("useRegex", "pageSize", "operation", "excludeUnacknowledged"),
                            *("timeout", "unsafeSsl"),
                        ],
                    ),
                    _trigger(
                        "prometheus",
                        ["serverAddress", "query", "threshold"],
                        ["activationThreshold", "namespace", "ignoreNullValues", "unsafeSsl"],
                    ),
                ]
            },
        },
    },
    minReplicaCount=_COUNT,
    maxReplicaCount=_COUNT,
    idleReplicaCount=_COUNT,
    pollingInterval=_COUNT,
    cooldownPeriod=_COUNT,
)
_TRIGGER_AUTHENTICATION = _only(
    {
        "secretTargetRef": {
            "type": "array",
            "items": _only(
                {
                    "parameter": {"enum": ["host", "username", "password", "tls", "ca"]},
                    "name": _TEXT,
                    "key": _TEXT,
                }
            ),
        }
    }
)
_RABBITMQ_CLUSTER = _only(
    {
        "replicas": {"enum": [1, 3, 5]},
        "persistence": _only({"storage": _TEXT}, storageClassName=_TEXT),
    },
    image=_TEXT,
    resources=_only({"requests": {"type": "object"}, "limits": {"type": "object"}}),
    affinity={"type": "object"},
    tls=_only(
        {"secretName": _TEXT}, caSecretName=_TEXT, disableNonTLSListeners={"type": "boolean"}
    ),
    terminationGracePeriodSeconds=_COUNT,
    rabbitmq=_only(
        {},
        additionalConfig=_TEXT,
        envConfig=_TEXT,
        additionalPlugins={"type": "array", "items": _TEXT},
    ),
)

CUSTOM = {
    "ScaledObject": _resource("keda.sh/v1alpha1", "ScaledObject", _SCALED_OBJECT),
    "TriggerAuthentication": _resource(
        "keda.sh/v1alpha1", "TriggerAuthentication", _TRIGGER_AUTHENTICATION
    ),
    "RabbitmqCluster": _resource("rabbitmq.com/v1beta1", "RabbitmqCluster", _RABBITMQ_CLUSTER),
    "Kustomization": {
        "type": "object",
        "properties": {
            "apiVersion": {"const": "kustomize.config.k8s.io/v1beta1"},
            "kind": {"const": "Kustomization"},
            "namespace": _TEXT,
            "resources": {"type": "array", "items": _TEXT},
            "patches": {"type": "array", "items": _only({"path": _TEXT})},
        },
        "required": ["apiVersion", "kind", "resources"],
        "additionalProperties": False,
    },
}
