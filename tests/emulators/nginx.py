"""nginx as a plain reverse proxy on loopback: an HTTP parser that somebody else wrote, in front of or behind ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from counterfoil.demo.processes import Process
from emulators.ports import HOST, free_port
from emulators.waiting import PATIENCE_S

_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_header_timeout 1s;
    client_body_timeout 1s;
    keepalive_timeout 1s;
    lingering_timeout 1s;
    lingering_time 1s;
    upstream behind {{ server {target}; keepalive 32; }}
    server {{
        listen {host}:{port} backlog=1024;
        location = /nginx-is-ready {{ return 200 ready; }}
        location / {{
            proxy_pass http://behind;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
            proxy_read_timeout 10s;
        }}
    }}
}}
"""


PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"


def missing() -> str | None:
    """Why nginx cannot be run here, or None."""
    return None if shutil.which("nginx", path=PATH) else _MISSING


_MISSING = "nginx is not installed (apt-get install nginx-light): the third opinion on malformed requests is missing"


@contextmanager
def running(folder: Path, target: str) -> Iterator[int]:
    """Run nginx in front of ``target`` (host:port) with connections kept to it; give nginx's port."""
    program = shutil.which("nginx", path=PATH)
    assert program is not None, _MISSING
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, target=target, host=HOST, port=port))
    with Process("nginx", [program, "-p", str(folder), "-c", str(config)], folder / "nginx.log") as process:
        process.wait_until_ready(HOST, port, "/nginx-is-ready", PATIENCE_S)
        yield port
