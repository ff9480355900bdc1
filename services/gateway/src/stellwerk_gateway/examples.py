"""Examples that the OpenAPI description shows; a test sends each of them."""

from fastapi.openapi.models import Example

_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_ENTRY = {"path": "train.py", "size": 4, "sha256": _DIGEST}

SSE = (
    "One event per status change: `id` is its sequence, `data` a RunEventView as JSON. "
    "A comment comes at least every 15 seconds."
)

RUN: dict[str, Example] = {
    "inline": {
        "summary": "A small script, sent with the request",
        "value": {
            "experiment": "hello",
            "spec": {
                "source": {"inline": {"hello.py": "print('hello')\n"}},
                "script": "hello.py",
                "tags": {"purpose": "demo"},
            },
        },
    },
    "snapshot": {
        "summary": "A snapshot on a cluster, with a dataset and an environment",
        "value": {
            "experiment": "mnist",
            "spec": {
                "source": {"snapshot": _DIGEST},
                "script": "train.py",
                "arguments": ["--data", {"input": "mnist"}, "--epochs", 3],
                "inputs": {"mnist": {"dataset": "mnist", "version": 1}},
                "environment": {"python": "3.11", "pip_packages": ["keras"]},
                "target": "gpu-cluster",
            },
        },
    },
}
RUN_PATCH: dict[str, Example] = {
    "tags": {"summary": "Add a tag", "value": {"tags": {"quality": "good"}}}
}
RECORDS: dict[str, Example] = {
    "metrics": {
        "summary": "Two values of one metric",
        "value": {
            "writer": "my-notebook-1",
            "first": 0,
            "records": [
                {"k": "metric", "n": "loss", "v": 0.5, "s": 1},
                {"k": "metric", "n": "loss", "v": 0.25, "s": 2},
            ],
        },
    }
}
BLOBS: dict[str, Example] = {
    "one": {"summary": "One file", "value": {"blobs": [{"sha256": _DIGEST, "size": 4}]}}
}
SNAPSHOT: dict[str, Example] = {
    "one": {"summary": "One file", "value": {"manifest": {"entries": [_ENTRY]}}}
}
DATASET: dict[str, Example] = {
    "files": {
        "summary": "Uploaded files",
        "value": {"source": {"kind": "files", "entries": [_ENTRY]}},
    },
    "urls": {
        "summary": "Web addresses",
        "value": {"source": {"kind": "urls", "urls": ["https://example.org/data.csv"]}},
    },
}
ENVIRONMENT: dict[str, Example] = {
    "packages": {
        "summary": "Packages",
        "value": {
            "name": "keras-cpu",
            "definition": {"python": "3.11", "pip_packages": ["keras==3.11.*", "jax[cpu]"]},
        },
    },
    "conda": {
        "summary": "A conda file",
        "value": {"name": "from-conda", "conda_yaml": "dependencies:\n- python=3.11\n"},
    },
    "pyproject": {
        "summary": "A project; uv_lock holds the text of its lock",
        "value": {
            "name": "from-project",
            "pyproject": '[project]\nname = "digits"\ndependencies = ["keras>=3.10"]\n',
        },
    },
}
COMPUTE: dict[str, Example] = {
    "elastic": {
        "summary": "From nothing to four nodes",
        "value": {"name": "gpu-cluster", "min_nodes": 0, "max_nodes": 4},
    }
}
SECRET: dict[str, Example] = {
    "text": {"summary": "A password", "value": {"value": "correct horse battery staple"}}
}
MODEL: dict[str, Example] = {
    "run": {
        "summary": "From a run's outputs",
        "value": {
            "name": "mnist",
            "run_id": "0123456789abcdef0123456789abcdef",
            "path": "outputs/model.keras",
            "tags": {"framework": "keras"},
        },
    }
}
