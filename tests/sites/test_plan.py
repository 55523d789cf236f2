"""The plan of `flmq site`: apply twice is apply once, and remove undoes apply."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flmq.broker.management import Management
from flmq.common.urls import BrokerUrl
from flmq.sites.definitions import definitions
from flmq.sites.federation import Federation, LinkOptions, Site
from flmq.sites.plan import (
    Change,
    NotALeaf,
    Sign,
    Standing,
    WrongType,
    plan_apply,
    plan_remove,
)
from flmq.sites.wanted import OURS, Item, Kind, wanted, wanted_buffers

World = dict[str, Standing]


def site(number: int, parent: int | None, prefetch: int = 8) -> Site:
    url = BrokerUrl(f"host-{number}", 5672, "flmq", "flmq", "s3cret")
    api = Management(url.host, 15672, url.user, url.password)
    above = None if parent is None else f"site-{parent}"
    return Site(f"site-{number}", url, url, api, above, link=LinkOptions(prefetch))


@st.composite
def federations(draw: st.DrawFn) -> Federation:
    """Any tree of up to seven sites."""
    count = draw(st.integers(1, 7))
    sites = [site(0, None)]
    for number in range(1, count):
        parent = draw(st.integers(0, number - 1))
        sites.append(site(number, parent, draw(st.integers(8, 16))))
    return Federation(tuple(draw(st.permutations(sites))))


def empty(federation: Federation) -> World:
    return {each.name: Standing({}, f"cluster of {each.name}") for each in federation}


def carried_out(world: World, federation: Federation, changes: tuple[Change, ...]) -> World:
    """Do to the ``world`` what brokers would; links then make their buffers, as RabbitMQ does."""
    items = {name: dict(standing.items) for name, standing in world.items()}
    for change in changes:
        key = change.item.kind, change.item.name
        if change.sign is Sign.REMOVE:
            del items[change.site][key]
        else:
            assert (key in items[change.site]) is (change.sign is Sign.CHANGE)
            items[change.site][key] = change.item
    clusters = {name: standing.cluster for name, standing in world.items()}
    for name in {change.site for change in changes}:
        if any(kind is Kind.POLICY for kind, _ in items[name]):
            for each in federation:
                for buffer in wanted_buffers(federation, each, clusters):
                    item = Item(Kind.BUFFER, buffer, {"messages": 3})
                    items[each.name][Kind.BUFFER, buffer] = item
    return {name: Standing(each, clusters[name]) for name, each in items.items()}


@settings(max_examples=40, deadline=None)
@given(federations())
def test_apply_twice_is_apply_once(federation: Federation) -> None:
    world = empty(federation)
    world = carried_out(world, federation, plan_apply(federation, world))
    assert plan_apply(federation, world) == ()
    for each in federation:
        for item in wanted(federation, each):
            assert world[each.name].items[item.kind, item.name] == item


@settings(max_examples=40, deadline=None)
@given(federations(), st.data())
def test_remove_undoes_apply(federation: Federation, data: st.DataObject) -> None:
    leaves = [each for each in federation if each.parent and not federation.children(each.name)]
    if not leaves:
        return
    leaf = data.draw(st.sampled_from(leaves))
    rest = federation.without(leaf.name)
    world = empty(federation)
    without = carried_out(world, rest, plan_apply(rest, world))
    # Links of the whole that are deeper may make more hops: those stay.
    both = carried_out(without, federation, plan_apply(federation, without))
    after = carried_out(both, rest, plan_remove(federation, leaf.name, both))
    assert not any(item.name.startswith(OURS) for item in after[leaf.name].items.values())
    assert not any(kind is Kind.BUFFER for kind, _ in after[leaf.name].items)
    for each in rest:
        keys = set(after[each.name].items)
        assert keys == set(without[each.name].items)
        changed = {key for key in keys if after[each.name].items[key] != both[each.name].items[key]}
        assert changed <= ({
            (Kind.UPSTREAM_SET, f"{OURS}up"), (Kind.UPSTREAM_SET, f"{OURS}presence"),
        } if each.name == leaf.parent else set())  # fmt: skip
    assert all(
        change.sign is Sign.CHANGE and change.item.kind is Kind.UPSTREAM
        for change in plan_apply(rest, after)
    ), "only the number of hops may differ"


@settings(max_examples=40, deadline=None)
@given(federations(), st.data())
def test_whatever_stood_before_apply_leaves_what_is_wanted_and_nothing_more_of_ours(
    federation: Federation, data: st.DataObject
) -> None:
    """A site got another parent, or the file lost one: old links go, and a stranger's stay."""
    before = data.draw(federations())
    world = {**empty(before), **empty(federation)}
    world = carried_out(world, before, plan_apply(before, world))
    stranger = Item(Kind.POLICY, "ha", {"pattern": ".*"})
    hub = federation.hub.name
    world[hub] = Standing(
        {**world[hub].items, (stranger.kind, stranger.name): stranger}, world[hub].cluster
    )
    world = carried_out(world, federation, plan_apply(federation, world))
    assert plan_apply(federation, world) == ()
    assert (stranger.kind, stranger.name) in world[hub].items
    for each in federation:
        ours = {key for key in world[each.name].items if key[1].startswith(OURS)}
        links = {(item.kind, item.name) for item in wanted(federation, each)}
        assert ours == {key for key in links if key[1].startswith(OURS)}


def chain() -> Federation:
    return Federation((site(0, None), site(1, 0), site(2, 1), site(3, 0)))


def test_messages_may_cross_as_many_links_as_the_tree_is_deep() -> None:
    federation = chain()
    for each in federation:
        for item in wanted(federation, each):
            if item.kind is Kind.UPSTREAM:
                upstream = item.value["value"]
                assert upstream["max-hops"] == 2
                assert upstream["expires"] >= 86400 * 1000
                assert ("message-ttl" in upstream) is ("presence" in item.name)
                assert upstream["trust-user-id"] is True


def test_a_parents_upstreams_go_before_nothing_that_uses_them() -> None:
    federation = chain()
    world = empty(federation)
    made = [change.item.kind for change in plan_apply(federation, world)]
    assert made == sorted(made, key=list(Kind).index)
    world = carried_out(world, federation, plan_apply(federation, world))
    kinds = [change.item.kind for change in plan_remove(federation, "site-2", world)]
    assert kinds.index(Kind.POLICY) < kinds.index(Kind.UPSTREAM) < kinds.index(Kind.BUFFER)


def test_a_site_with_children_and_the_hub_are_not_taken_away() -> None:
    with pytest.raises(NotALeaf, match="'site-1' is the parent of site-2"):
        plan_remove(chain(), "site-1", {})
    with pytest.raises(NotALeaf, match="parent of site-1, site-3"):
        plan_remove(chain(), "site-0", {})
    with pytest.raises(NotALeaf, match="is the hub"):
        plan_remove(Federation((site(0, None),)), "site-0", {})


def test_an_exchange_of_another_type_is_named() -> None:
    federation = chain()
    world = empty(federation)
    wrong = Item(Kind.EXCHANGE, "flmq.tasks", {"type": "fanout", "durable": True})
    world["site-1"] = Standing({(wrong.kind, wrong.name): wrong}, "")
    with pytest.raises(WrongType, match=r"'site-1' has exchange 'flmq\.tasks', of another"):
        plan_apply(federation, world)


def test_definitions_name_all_that_is_wanted() -> None:
    federation = chain()
    region = federation["site-1"]
    made = definitions(federation, region)
    json.dumps(made)
    entries = [each for key, values in made.items() if key != "vhosts" for each in values]
    assert len(entries) == len(list(wanted(federation, region)))
    assert all(each["vhost"] == "flmq" for each in entries)
