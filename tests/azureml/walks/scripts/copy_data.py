import argparse
import os
import shutil

from azureml.core import Run

parser = argparse.ArgumentParser()
parser.add_argument("--folder")
parser.add_argument("--file")
parser.add_argument("--out")
args = parser.parse_args()
run = Run.get_context()
print(args, run.input_datasets["diabetes"])
assert os.path.isfile(args.file), args.file
assert os.path.isfile(os.path.join(args.folder, "labels.csv"))
assert run.input_datasets["diabetes"] == args.folder
os.makedirs(args.out, exist_ok=True)
shutil.copy(args.file, os.path.join(args.out, "copy.csv"))
