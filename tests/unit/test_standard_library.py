"""The folder `operator/` does not hide the standard library's module of that name."""

import operator
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_folder_is_no_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_pytest_finds_the_standard_librarys_module() -> None:
    assert Path(operator.__file__ or "").parent == Path(sysconfig.get_paths()["stdlib"])


def test_python_started_in_the_repository_finds_it_too() -> None:
    code = "import operator; print(operator.itemgetter(0)('a'), operator.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["a", str(Path(sysconfig.get_paths()["stdlib"]) / "operator.py")], done.stderr
