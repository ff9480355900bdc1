import argparse
import os

from azureml.core import Run

parser = argparse.ArgumentParser()
parser.add_argument("--data_path", type=str)
parser.add_argument("--learning_rate", type=float, default=0.001)
args = parser.parse_args()
print("===== DATA =====", args.data_path, os.listdir(args.data_path), sep="\n")
Run.get_context().log("files", len(os.listdir(args.data_path)))
