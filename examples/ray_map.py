"""Ray Data around a loaded model, by actors: ray_map.py IN.parquet OUT.parquet MODEL COLUMN [ACTORS]"""

import sys
from typing import Any

import ray

import toast


class Embed:
    """An actor that holds the model."""

    def __init__(self, model: str, column: str) -> None:
        self.model, self.column = toast.load(model), column

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "embedding": self.model.encode(batch[self.column].tolist())}


def main(source: str, target: str, model: str, column: str, actors: str = "1") -> None:
    rows = ray.data.read_parquet(source)
    pool = ray.data.ActorPoolStrategy(size=int(actors))
    made = rows.map_batches(
        Embed, fn_constructor_args=(model, column), batch_size=1024, compute=pool, num_cpus=1
    )  # fmt: skip
    made.write_parquet(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
