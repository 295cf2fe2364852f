"""Runs dlt's pg_replication source once into a DuckDB file and says how many seconds it took. Started by references.ts."""

import json
import os
import sys
import time

task = json.loads(sys.argv[1])
# Tuned: columnar files, large batches, two workers.
os.environ.setdefault("NORMALIZE__WORKERS", "2")
os.environ.setdefault("LOAD__WORKERS", "2")
os.environ.setdefault("DATA_WRITER__BUFFER_MAX_ITEMS", "200000")
os.environ["SOURCES__PG_REPLICATION__CREDENTIALS"] = task["url"]
sys.path.insert(0, task["sourcePath"])

import dlt  # noqa: E402
from pg_replication import replication_resource  # noqa: E402
from pg_replication.helpers import init_replication  # noqa: E402


def main() -> None:
    destination = dlt.destinations.duckdb(os.path.join(task["directory"], "reference.duckdb"))
    pipeline = dlt.pipeline(pipeline_name="bench", destination=destination, dataset_name="bench", pipelines_dir=task["directory"])
    start = time.perf_counter()
    if task["tag"] == "snapshot":
        resource = init_replication(slot_name="bench_dlt", pub_name="bench_dlt", schema_name="public", table_names=task["tableNames"], persist_snapshots=True)
    else:
        resource = replication_resource(task["slotName"], task["publicationName"], target_batch_size=200_000)
    pipeline.run(resource, loader_file_format="parquet")
    print(f"seconds {time.perf_counter() - start:.3f}")


if __name__ == "__main__":
    main()
