"""Runs the cells of notebooks in new kernels, and keeps their outputs in the files.

    python scripts/run_notebook.py examples/lenet.ipynb

Bars of finished epochs leave no output. An error in a cell ends the program, and the
file stays as it was.
"""

import argparse
import pathlib

import nbformat
from nbclient import NotebookClient


def run_notebook(path: pathlib.Path) -> None:
    """Runs a notebook in its own folder, and writes its file."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        kernel_name="python3",  # of this interpreter
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        store_widget_state=False,
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("data") != {}]
    # It tells the Python of this machine, which another run would change.
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=pathlib.Path, metavar="FILE")
    for path in parser.parse_args().notebooks:
        run_notebook(path)
