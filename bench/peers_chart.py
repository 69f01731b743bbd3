"""The bar chart of what bench.peers_cpu measured: python -m bench.peers_chart peers_cpu.json docs/peers_cpu.png"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

COLOURS = {"wamcore": "#0b6e4f", "torch": "#e07a5f", "onnxruntime": "#8d99ae", "openvino": "#3d5a80", "ggml": "#b08968"}


def draw(report: dict, path: Path) -> None:
    """One panel for each size, number of threads and instruction set; bars are medians in ms, the shortest first; a
    bar that runs out of its panel is longer than drawn."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot as plt

    panels = {title: finished(rows) for title, rows in report["results"].items() if finished(rows)}
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    tall = max(len(rows) for rows in panels.values())
    figure, axes = plt.subplots(lines, columns, figsize=(6.2 * columns, (0.25 * tall + 0.6) * lines), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, rows) in zip(axes.flat, panels.items(), strict=False):
        names, medians = zip(*rows, strict=True)
        end = min(max(medians), 4 * median(medians))  # one peer that emulates its dtype does not flatten all the others
        axis.barh(names, medians, color=[COLOURS[n.split("-")[0]] for n in names], height=0.7)
        for y, (_, ms) in enumerate(rows):
            number = f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"
            if ms <= end:
                axis.text(ms, y, f" {number}", va="center", fontsize=7)
            else:
                axis.text(
                    1.14 * end, y, f"{number} \N{RIGHTWARDS ARROW}", va="center", ha="right", color="white", fontsize=7
                )
        axis.invert_yaxis()
        axis.set_xlim(0, 1.15 * end)
        axis.tick_params(labelsize=7)
        axis.set_title(title, fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("ms for one denoise pass, median", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def finished(rows: dict) -> list[tuple[str, float]]:
    """[(peer, median in ms)], the fastest first."""
    timed = [(peer, row["wall_ms"]["median"]) for peer, row in rows.items() if "wall_ms" in row]
    return sorted(timed, key=lambda row: row[1])


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
