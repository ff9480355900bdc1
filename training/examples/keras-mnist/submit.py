"""Train a Keras network on MNIST with Stellwerk, step by step, from data to registered model.

Run it where a platform is found (`stellwerk up` starts one on this machine). It ends with one line
`demo: Completed run=... test_accuracy=... model=keras-mnist:... seconds=...` and status 0, or says
why it could not and ends with another status.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

from stellwerk import (
    AmlCompute,
    ComputeTarget,
    ComputeTargetException,
    Dataset,
    Environment,
    Experiment,
    FileDataset,
    Model,
    Run,
    RunFailedError,
    ScriptRunConfig,
    StellwerkError,
    Workspace,
)
from stellwerk.phases import PhasePrinter

HERE = Path(__file__).parent
EXPERIMENT = "keras-mnist"
WANTED_ACCURACY = 0.975


def step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def shown(value: object) -> str:
    """A metric: numbers with four digits, a list on one line."""
    if isinstance(value, list):
        return " ".join(map(shown, value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def registered_dataset(workspace: Workspace) -> FileDataset:
    step("Dataset: register the four files of MNIST as mnist-dataset")
    files = Dataset.File.upload_directory(
        src_dir=str(HERE / "data"),
        target=(workspace.get_default_datastore(), "keras-mnist-example"),
        pattern="*.gz",
        overwrite=True,
    )
    dataset = files.register(
        workspace,
        name="mnist-dataset",
        description="training and test images of handwritten digits",
        create_new_version=True,
    )
    found = "registered" if dataset.created else "reused: the same files are registered already as"
    print(f"{found} {dataset.name}:{dataset.version}: {' '.join(dataset.to_path())}")
    return dataset


def cluster(workspace: Workspace) -> AmlCompute:
    step("Compute: get or create the cluster cpu-cluster")
    name = "cpu-cluster"
    try:
        target = ComputeTarget(workspace=workspace, name=name)
        print("reused: the cluster exists already")
    except ComputeTargetException:
        settings = AmlCompute.provisioning_configuration(min_nodes=0, max_nodes=4)
        target = ComputeTarget.create(workspace, name, settings)
        target.wait_for_completion(show_output=True, min_node_count=None, timeout_in_minutes=20)
    scale = target.get_status().serialize()["scaleSettings"]
    print(f"{name}: {scale['minNodeCount']} to {scale['maxNodeCount']} nodes")
    return target


def environment(workspace: Workspace) -> Environment:
    step("Environment: from conda_dependencies.yml")
    wanted = Environment.from_conda_specification(
        name="keras-mnist", file_path=str(HERE / "conda_dependencies.yml")
    )
    # Spares two long lines about rounding at every start of TensorFlow.
    wanted.environment_variables["TF_ENABLE_ONEDNN_OPTS"] = "0"
    made = wanted.register(workspace)
    if made.state == "ready":
        print(f"reused: {made.name}:{made.version} is built and in the cache")
    else:
        print(f"{made.name}:{made.version} will be built with the first run that needs it")
    return made


def finished(run: Run) -> Run:
    """Show the run until it has ended, its phases included."""
    run.wait_for_completion(show_output=True, on_event=PhasePrinter(sys.stdout))
    if run.status != "Completed":
        raise StellwerkError(f"run {run.id} ended as {run.status}")
    return run


def train(
    workspace: Workspace, dataset: FileDataset, target: AmlCompute, packages: Environment
) -> Run:
    step("Run: submit train/keras_mnist.py")
    config = ScriptRunConfig(
        source_directory=str(HERE / "train"),
        script="keras_mnist.py",
        arguments=[
            "--data-folder", dataset.as_named_input("mnist").as_mount(),
            "--batch-size", 50,
            "--first-layer-neurons", 300,
            "--second-layer-neurons", 100,
            "--learning-rate", 0.001,
        ],
        compute_target=target,
        environment=packages,
    )  # fmt: skip
    return finished(Experiment(workspace, EXPERIMENT).submit(config, show_progress=True))


def results(run: Run, folder: Path) -> Model:
    step("Results: metrics, files, model")
    for name, value in run.get_metrics().items():
        print(f"{name}: {shown(value)}")
    print("files:", *run.get_file_names(), sep="\n  ")
    run.download_files("outputs/model", str(folder / "outputs"), append_prefix=False)
    model = run.register_model(
        model_name="keras-mnist",
        model_path="outputs/model",
        model_framework="Keras",
        tags={"data": "mnist"},
    )
    print(f"registered {model.name}:{model.version}")
    return model


def predict(
    workspace: Workspace,
    model: Model,
    folder: Path,
    dataset: FileDataset,
    target: AmlCompute,
    packages: Environment,
) -> float:
    """Accuracy of the registered model, downloaded again, on the test images.

    Keras lives in the run's environment and not here, so the prediction is a run as well, whose
    source is the script and the downloaded model.
    """
    step(f"Prediction: download {model.id} and let it read the test images")
    source = folder / "predict"
    source.mkdir()
    for name in ("predict.py", "utils.py"):
        shutil.copy(HERE / "train" / name, source)
    print("downloaded to", model.download(str(source), show_progress=True))
    config = ScriptRunConfig(
        source_directory=str(source),
        script="predict.py",
        arguments=["--data-folder", dataset.as_named_input("mnist").as_mount()],
        compute_target=target,
        environment=packages,
    )
    run = finished(Experiment(workspace, EXPERIMENT).submit(config, show_progress=True))
    return float(run.get_metrics()["test_accuracy"])


def main() -> str:
    began = time.monotonic()
    step("Workspace")
    workspace = Workspace.from_config()
    platform = workspace.get_details()
    print(f"workspace {workspace.name} at {workspace.url}, Stellwerk {platform['version']}")
    dataset = registered_dataset(workspace)
    target = cluster(workspace)
    packages = environment(workspace)
    run = train(workspace, dataset, target, packages)
    with tempfile.TemporaryDirectory(prefix="keras-mnist-") as folder:
        model = results(run, Path(folder))
        accuracy = predict(workspace, model, Path(folder), dataset, target, packages)
    if accuracy < WANTED_ACCURACY:
        raise StellwerkError(
            f"the model reads {accuracy:.4f} of the test images, wanted are {WANTED_ACCURACY}"
        )
    return (
        f"demo: Completed run={run.id} test_accuracy={accuracy:.4f} "
        f"model={model.id} seconds={time.monotonic() - began:.0f}"
    )


if __name__ == "__main__":
    try:
        last_line = main()
    except RunFailedError as error:
        failure = error.details.get("error", {}).get("error", {})
        sys.exit(
            f"demo: Failed run={error.details['runId']}: {failure.get('message', error.message)}"
        )
    except StellwerkError as error:
        sys.exit(f"demo: Failed: {error.message}")
    except KeyboardInterrupt:
        sys.exit("demo: Failed: interrupted")
    print(f"\n{last_line}")
