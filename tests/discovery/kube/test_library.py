from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from discovery.kube.library import load_library
library = load_library()
assert library.Configuration(host="https://example").host == "https://example"
print([name for name in sys.modules if name.startswith("kubernetes_asyncio")])
import kubernetes_asyncio.client
assert kubernetes_asyncio.client.V1Service
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_library_is_loaded_without_its_models_and_leaves_no_trace() -> None:
    assert run(CODE) == "[]\n"


def test_the_models_are_never_loaded() -> None:
    watched = "import sys\nseen = []\nsys.addaudithook(lambda event, args: seen.append(args[0]) "
    watched += "if event == 'import' else None)\n"
    shown = "\nprint(any('models' in name for name in seen if name.startswith('kubernetes')), len(seen) > 0)"
    code = CODE.partition("import kubernetes_asyncio.client")[0].replace("print(", "list(")
    assert run(watched + code + shown) == "False True\n"


def test_a_package_that_is_loaded_already_is_used_as_it_is() -> None:
    code = (
        "import kubernetes_asyncio.client\n"
        "from discovery.kube.library import load_library\n"
        "print(load_library().Configuration is kubernetes_asyncio.client.Configuration)"
    )
    assert run(code) == "True\n"


def test_parts_that_have_moved_are_looked_for_in_the_whole() -> None:
    code = (
        "import discovery.kube.library as lib\n"
        "stand_in = lib._stand_in\n"
        "def fail(name):\n"
        "    stand_in(name)\n"
        "    raise ImportError('moved')\n"
        "lib._stand_in = fail\n"
        "import kubernetes_asyncio.config.kube_config as kube_config\n"
        "import sys\n"
        "lib._take_away()\n"
        "library = lib.load_library()\n"
        "print(library.KubeConfigLoader.__name__)"
    )
    assert run(code).splitlines()[-1] == "KubeConfigLoader"
