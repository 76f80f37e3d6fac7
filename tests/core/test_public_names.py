"""What the packages promise by name is there, and costs nothing until it is named."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = ("ngram", "optim", "quant", "spec", "spec.heads", "grammar", "dist", "model", "kvcache")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_resolves_and_is_listed(package):
    module = importlib.import_module(f"gramcore.{package}")
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=rf"'gramcore.{package}' has no attribute 'no_such_name'"):
        _ = module.no_such_name


def test_naming_every_package_imports_no_torch():
    naming = "".join(f"import gramcore.{name}\n" for name in PACKAGES)
    code = f"{naming}import sys\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
