"""Copy what tests need out of the Go modules of go.mod: `python3 -m hack.crds FOLDER`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

MODULE = Path(__file__).parent
FILES = {
    "github.com/kedacore/keda/v2": (
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "schema/generated/scalers-schema.json",
    ),
    "github.com/prometheus-operator/prometheus-operator": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
}


def copy_files(folder: Path) -> None:
    """Download each module, which go.sum verifies, and copy its files into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for module, files in FILES.items():
        command = ["go", "mod", "download", "-json", module]
        said = subprocess.run(command, cwd=MODULE, check=False, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(said or "{}")
        if "Dir" not in found:
            raise SystemExit(f"{module} could not be downloaded: {found.get('Error', 'see above')}")
        for file in files:
            shutil.copyfile(Path(found["Dir"], file), folder / Path(file).name)


if __name__ == "__main__":
    copy_files(Path(sys.argv[1]))
