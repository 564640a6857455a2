"""Write the Grafana boards as JSON (`make docs`); `hack/manifests/boards` says what is on them.

The same bytes go to `manifests/monitoring` and into the chart, because neither kustomize nor Helm reads files
from outside its own folder.
"""

from __future__ import annotations

import json
from pathlib import Path

from hack.manifests.boards import control, node, overview, service
from hack.manifests.boards.panels import board_json

ROOT = Path(__file__).resolve().parents[2] / "manifests"
FOLDERS = (ROOT / "monitoring" / "dashboards", ROOT / "charts" / "svcmesh" / "files" / "dashboards")
BOARDS = (overview.BOARD, service.BOARD, node.BOARD, control.BOARD)


def files() -> dict[str, str]:
    """Return each file's name and text."""
    return {f"{board.uid}.json": json.dumps(board_json(board), indent=1) + "\n" for board in BOARDS}


def copies() -> dict[Path, str]:
    """Return what each copy holds."""
    return {folder / name: text for folder in FOLDERS for name, text in files().items()}


if __name__ == "__main__":
    for path, text in copies().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
