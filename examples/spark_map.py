"""Spark around a loaded model, by mapInArrow: spark_map.py IN.parquet OUT.parquet MODEL COLUMN

Each executor's Python loads the model once and maps its weights, which all executors of a machine share.
"""

import sys
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession


def main(source: str, target: str, model: str, column: str) -> None:
    def embed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import toast

        loaded = toast.load(model)
        for batch in batches:
            rows = loaded.encode(batch.column(column).to_pylist())
            yield batch.append_column("embedding", pa.array(list(rows), pa.list_(pa.float32())))

    spark = SparkSession.builder.getOrCreate()
    table = spark.read.parquet(source)
    names = [f"`{field.name}` {field.dataType.simpleString()}" for field in table.schema]
    table.mapInArrow(embed, ", ".join([*names, "embedding array<float>"])).write.parquet(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
