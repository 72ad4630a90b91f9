"""What `sam build` makes of the Lambda: its code, what that imports, nothing else; for the machine it runs on."""

from pathlib import Path

import pytest

from cloud.setup import stack

ROOT = Path(__file__).parents[2]
AARCH64 = b"\xb7\x00"  # e_machine of an ELF file (ELF-64 Object File Format, "ELF Header")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build for AWS, whatever this machine is."""
    return stack.build({}, tmp_path_factory.mktemp("build") / "log") / "RotationFunction"


def test_it_holds_the_lambdas_code_and_only_that_of_ours(built: Path) -> None:
    ours = {path.relative_to(built).as_posix() for path in (built / "cloud").rglob("*") if path.is_file()}
    assert ours == {f"cloud/rotation/{path.name}" for path in (ROOT / "cloud/rotation").glob("*.py")}


def test_it_holds_the_pinned_packages_and_no_sdk(built: Path) -> None:
    pinned = {line.split("==")[0] for line in (ROOT / "cloud/rotation/requirements.txt").read_text().splitlines()}
    there = {path.name.split("-")[0] for path in built.glob("*.dist-info")}
    assert there
    assert there <= pinned
    assert not {"boto3", "botocore", "tests", "iot_agent"} & {path.name for path in built.iterdir()}


def test_its_native_parts_are_for_the_functions_own_machine(built: Path) -> None:
    native = list(built.rglob("*.so"))
    assert native
    for path in native:
        assert path.read_bytes()[18:20] == AARCH64, path.name
        assert "cpython-313-aarch64" in path.name or ".abi3." in path.name, path.name
