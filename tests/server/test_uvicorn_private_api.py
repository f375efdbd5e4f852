"""What `broker.server` uses of uvicorn beyond its documented API (`Config` and `Server.serve`).

A new uvicorn release may rename any of it, so pyproject.toml has an upper bound. Raise the bound
when these tests pass with the new release.
"""

import ast
import inspect
import re
import textwrap
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

import broker.server
from tests.docs.documents import text_of

IMPORTED = {
    "uvicorn": {"Config", "Server"},
    "uvicorn._types": {"HTTPScope"},
    "uvicorn.protocols.http.httptools_impl": {"HttpToolsProtocol", "RequestResponseCycle"},
}

MEMBERS = {
    HttpToolsProtocol: {
        *("_unset_keepalive_if_required", "client", "connection_lost", "connection_made"),
        *("connections", "cycle", "data_received", "flow", "headers", "loop", "on_body"),
        *("on_headers_complete", "on_message_complete", "on_response_complete", "parser"),
        *("pause_writing", "pipeline", "resume_writing", "scope", "server_state", "shutdown"),
        *("timeout_keep_alive_handler", "timeout_keep_alive_task", "transport", "url"),
    },
    RequestResponseCycle: {
        *("body", "disconnected", "message_event", "more_body", "on_response"),
        *("response_complete", "response_started", "scope"),
    },
    FlowControl: {"pause_reading", "read_paused", "resume_reading", "write_paused"},
    ServerState: {"connections", "default_headers"},
    uvicorn.Server: {
        *("capture_signals", "config", "lifespan", "serve", "server_state", "servers"),
        *("should_exit", "shutdown", "started"),
    },
    uvicorn.Config: {"http_protocol_class"},
}

SOURCES = sorted(Path(broker.server.__path__[0]).glob("*.py"))


def _members(made: type) -> set[str]:
    """Return methods, annotations and the attributes that methods assign."""
    found = set(vars(made)) | set(getattr(made, "__annotations__", {}))
    for name in vars(made):
        member = vars(made)[name]
        if inspect.isfunction(member):
            source = textwrap.dedent(inspect.getsource(member))
            found |= set(re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = ", source))
    return {name for name in found if not name.startswith("__")}


def _used() -> set[str]:
    """Return every attribute that the package reads, writes or overrides."""
    names: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.ClassDef):
                names |= {part.name for part in node.body if isinstance(part, _FUNCTIONS)}
    return names


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_every_listed_member_exists() -> None:
    missing = {made.__name__: names - _members(made) for made, names in MEMBERS.items()}
    assert not {name: members for name, members in missing.items() if members}


def test_every_member_in_use_is_listed() -> None:
    used = _used()
    known = {name for made in MEMBERS for name in _members(made)}
    named = {name for names in MEMBERS.values() for name in names}
    # The package's own classes, sockets and event loops have these names as well.
    shared = {"_transport", "app", "close", "host", "path", "port", "receive", "send", "state"}
    assert used & known - shared == named


def test_only_the_server_package_imports_uvicorn() -> None:
    product = Path(broker.server.__path__[0]).parent
    importers = {
        path.parent
        for path in product.rglob("*.py")
        if re.search(r"^\s*(from|import) uvicorn", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert importers == {product / "server"}


def test_every_import_is_listed() -> None:
    imported: dict[str, set[str]] = {}
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("uvicorn"):
                names = imported.setdefault(node.module or "", set())
                names |= {alias.name for alias in node.names}
        if re.search(r"^import uvicorn$", text, re.MULTILINE):
            imported.setdefault("uvicorn", set()).update(re.findall(r"\buvicorn\.([A-Z]\w+)", text))
    assert imported == IMPORTED


def test_the_release_is_bounded_above() -> None:
    (bound,) = re.findall(r'"uvicorn>=[\d.]+,<0\.(\d+)"', text_of("pyproject.toml"))
    installed = int(uvicorn.__version__.split(".")[1])
    assert installed == int(bound) - 1
