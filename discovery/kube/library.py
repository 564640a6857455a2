"""The parts of kubernetes-asyncio that are used, loaded without the rest of it.

`import kubernetes_asyncio.config` loads the whole package: a class for each of Kubernetes' 800 model types,
38 MiB of memory on every node of a cluster, of which none is used here. What is used (`Configuration` and the
loaders of `kubernetes_asyncio.config`) costs 4 MiB. So the packages' `__init__` files are left out: bare
packages with the same paths stand in for them while the parts are imported, and are taken away again, so
that an ordinary import elsewhere still gets everything. Should a release move these parts, they are imported
in the ordinary way.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any, NamedTuple

import structlog

log = structlog.get_logger()

PACKAGE = "kubernetes_asyncio"


class Library(NamedTuple):
    """The names we use of kubernetes-asyncio, which has no types worth the name."""

    Configuration: Any
    ConfigException: Any
    InClusterConfigLoader: Any
    KubeConfigLoader: Any
    KubeConfigMerger: Any


def load_library() -> Library:
    """Import what is used of kubernetes-asyncio."""
    if PACKAGE in sys.modules:
        return _import_parts()
    try:
        _stand_in(PACKAGE)
        client = _stand_in(f"{PACKAGE}.client")
        # `config.kube_config` imports both names from here; it uses ApiClient only to make new clients.
        client.__dict__["ApiClient"] = None
        client.__dict__["Configuration"] = _part("client.configuration").Configuration
        return _import_parts()
    except (ImportError, AttributeError) as error:
        log.warning("source_library_loaded_whole", reason=str(error))
        _take_away()
        return _import_parts()
    finally:
        _take_away()


def _import_parts() -> Library:
    kube_config = _part("config.kube_config")
    return Library(
        Configuration=_part("client.configuration").Configuration,
        ConfigException=_part("config.config_exception").ConfigException,
        InClusterConfigLoader=_part("config.incluster_config").InClusterConfigLoader,
        KubeConfigLoader=kube_config.KubeConfigLoader,
        KubeConfigMerger=kube_config.KubeConfigMerger,
    )


def _part(name: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.{name}")


def _stand_in(name: str) -> ModuleType:
    """Make a package of this name that has its path but has not run its `__init__`."""
    parent, _, _ = name.rpartition(".")
    path = sys.modules[parent].__path__ if parent else None
    spec = PathFinder.find_spec(name, path)
    if spec is None:
        raise ImportError(f"{name} is not installed")
    module = module_from_spec(spec)
    sys.modules[name] = module
    return module


def _take_away() -> None:
    for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
        del sys.modules[name]
