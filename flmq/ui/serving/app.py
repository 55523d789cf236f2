"""The page's routes: one frame for all views, their files, the JSON, and the stream of changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flmq import __version__
from flmq.common.errors import FlmqError
from flmq.ui.reading.broker import BrokerLook, no_broker
from flmq.ui.reading.comparing import CannotCompare
from flmq.ui.reading.runs import Cursor, NoSuchPage, Runs
from flmq.ui.serving.changes import Changes
from flmq.ui.serving.guard import Guard, Guarding

__all__ = ["build_app"]

_HERE = Path(__file__).resolve().parent.parent
STATIC = _HERE / "static"
TEMPLATES = _HERE / "templates"

_BEAT = 15.0
"""Seconds without a change after which a stream says that it is still there."""


class _Json(JSONResponse):
    def render(self, content: Any) -> bytes:
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        # Half a surrogate pair is no UTF-8, and a peer may have written it.
        return text.encode(errors="backslashreplace")


def build_app(
    runs: Runs, guarding: Guarding, broker: BrokerLook | None = None
) -> tuple[Starlette, Changes]:
    """Return the app over ``runs``, and its changes, to be ended before the server is.

    ``broker``: what the broker's view shows; None: how to name one.
    """
    changes = Changes(runs.versions)
    frame = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True).get_template(
        "page.html"
    )

    async def page(request: Request) -> Response:
        return HTMLResponse(frame.render(version=__version__))

    async def stream(request: Request) -> Response:
        job = request.query_params.get("job")
        if job is not None:
            await run_in_threadpool(runs.cursor, job)  # refuses a run that is not there
        events = _events(runs, changes, job)
        return StreamingResponse(events, media_type="text/event-stream")

    routes = [
        Route("/api/runs", _get(lambda request: {"runs": runs.heads()})),
        Route("/api/runs/{job}", _get(lambda request: runs.head(_job(request)))),
        Route(
            "/api/runs/{job}/rounds",
            _get(lambda request: runs.rounds(_job(request), _number(request, "since", 0))),
        ),
        Route(
            "/api/runs/{job}/rounds/{number:int}",
            _get(lambda request: runs.round(_job(request), request.path_params["number"])),
        ),
        Route("/api/runs/{job}/clients", _get(lambda request: runs.clients(_job(request)))),
        Route(
            "/api/runs/{job}/clients/{client:path}",
            _get(lambda request: runs.client(_job(request), request.path_params["client"])),
        ),
        Route("/api/runs/{job}/marks", _get(lambda request: runs.marks(_job(request)))),
        Route("/api/runs/{job}/log", _get(lambda request: _log(runs, request))),
        Route("/api/broker", _get(lambda request: _broker(runs, broker))),
        Route("/api/compare", _get(lambda request: runs.compare(_jobs(request)))),
        Route("/api/stream", stream),
        Route("/api/{rest:path}", _get(_unknown)),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/{rest:path}", page),
    ]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            changes.end()
            runs.close()

    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Guard, guarding=guarding),
            Middleware(GZipMiddleware, minimum_size=2048, compresslevel=3),
        ],
        exception_handlers={FlmqError: _refused, Exception: _broken},
        lifespan=lifespan,
    )
    return app, changes


def _get(made: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        return _Json(await run_in_threadpool(made, request))

    return answer


def _job(request: Request) -> str:
    return str(request.path_params["job"])


def _broker(runs: Runs, broker: BrokerLook | None) -> Any:
    running = [head["job"] for head in runs.heads() if head["state"] == "running"]
    told = no_broker() if broker is None else broker.now(running)
    return {**told, "refused": runs.refused()}


def _jobs(request: Request) -> list[str]:
    return request.query_params.get("jobs", "").split(",")


def _unknown(request: Request) -> Any:
    raise NoSuchPage(f"there is nothing at {request.url.path}")


def _log(runs: Runs, request: Request) -> Any:
    before = request.query_params.get("before")
    return runs.log(
        _job(request),
        None if before is None else _number(request, "before", 0),
        request.query_params.get("search", "")[:200],
        _number(request, "limit", 200),
    )


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.removeprefix("-").isdecimal() or len(text) > 18:
        raise NoSuchPage(f"{name}={text[:20]!r} is no number")
    return int(text)


async def _refused(request: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, NoSuchPage) else 503
    return _Json({"error": str(error)}, 400 if isinstance(error, CannotCompare) else status)


async def _broken(request: Request, error: Exception) -> Response:
    return _Json({"error": f"the page's server failed: {type(error).__name__}; see its log"}, 500)


async def _events(runs: Runs, changes: Changes, job: str | None) -> AsyncIterator[bytes]:
    """Yield server-sent events (HTML Standard, 9.2): what has changed, and since when.

    The first one says that everything may have: a page that comes back after a break, also of this
    server, has missed nothing once it has read what it names. The others name what is new.
    """
    known = Cursor(0, 0, 0)
    yield b"retry: 1000\n\n"
    changed: frozenset[str] | None = frozenset() if job is None else frozenset({job})
    everything = True
    async for found in _first(changed, changes.of(job, _BEAT)):
        if found is None:
            yield b": still there\n\n"
            continue
        if job is None:
            told: dict[str, Any] = {"jobs": None if everything else sorted(found)}
            yield _event(told, "0.0")
        else:
            try:
                now = await run_in_threadpool(runs.cursor, job)
            except FlmqError as error:
                yield _event({"job": job, "gone": str(error)}, "0.0")
                continue
            # A late reply may have changed any round: its page asks for all.
            anew = everything or now.read_anew != known.read_anew or now.round < known.round
            told = {
                "job": job,
                "rounds_from": 0 if anew else known.round + 1,
                "events_from": 0 if anew else known.entry + 1,
                "befell": anew or now.entry != known.entry,
            }
            known = now
            yield _event(told, f"{now.round}.{now.entry}")
        everything = False


async def _first(
    changed: frozenset[str] | None, rest: AsyncIterator[frozenset[str] | None]
) -> AsyncIterator[frozenset[str] | None]:
    yield changed
    async for each in rest:
        yield each


def _event(told: dict[str, Any], id_: str) -> bytes:
    return f"id: {id_}\ndata: {json.dumps(told, separators=(',', ':'))}\n\n".encode()
