"""Spark: each partition through the command, by rdd.pipe: spark_pipe.py IN OUT [classify's options]

IN: JSON lines with a text; OUT: a folder of JSON lines with the label, a file for each partition. A partition that
runs twice gives the same lines; --empty-ok, as a partition may have none.
"""

import os
import shlex
import sys

from pyspark.sql import SparkSession


def main(source: str, target: str, *options: str) -> None:
    spark = SparkSession.builder.getOrCreate()
    command = shlex.join(["classify", "-q", "--jsonl", "--json", "--empty-ok", *options])
    lines = spark.sparkContext.textFile(source)
    lines.pipe(command, env=dict(os.environ), checkCode=True).saveAsTextFile(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
