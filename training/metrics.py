"""What a training run writes down as it goes: metrics.csv, and Weights & Biases where that is wanted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basics.errors import warn
from results import paths, tables


class MetricsFile:
    """metrics.csv beside the checkpoints, and Weights & Biases where that is wanted and installed."""

    def __init__(self, config: Mapping[str, Any], folder: Path, since_update: int):
        self.path = folder / paths.METRICS_FILE
        self.rows = []
        if since_update > 0 and self.path.exists():
            rows = tables.read_metrics(self.path).to_dict("records")
            self.rows = [row for row in rows if row["update"] <= since_update]
        self.wandb = None
        if config["wandb_project"] is not None:
            try:
                import wandb
            except ImportError:
                warn(f"not logging to wandb_project {config['wandb_project']!r}: the package wandb is not installed")
            else:
                self.wandb = wandb.init(project=config["wandb_project"], name=str(folder), config=dict(config))

    def add(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        tables.write_metrics(self.path, self.rows)
        if self.wandb is not None:
            self.wandb.log(row, step=row["update"])

    def close(self) -> None:
        if self.wandb is not None:
            self.wandb.finish()
