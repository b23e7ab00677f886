"""Check that wheel and source distribution hold what they should, and nothing else."""

import re
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

folder = Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
(sdist,) = folder.glob("*.tar.gz")
weights = Path("mfsf2/weights/ham10000")
licences = ["LICENSE", str(weights / "LICENSE"), str(weights / "LICENSE.torchvision")]
package = {str(p) for p in Path("mfsf2").rglob("*") if p.suffix == ".py" or p.name == "py.typed"}
package |= {*licences[1:], *(str(weights / name) for name in ("README.md", "config.json", "model.safetensors"))}

with zipfile.ZipFile(wheel) as archive:
    names = set(archive.namelist())
    (metadata_name,) = (n for n in names if n.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(archive.read(metadata_name))
info = metadata_name.rsplit("/", 1)[0]
expected = package | {f"{info}/{n}" for n in ("METADATA", "RECORD", "WHEEL", "top_level.txt")}
expected |= {f"{info}/licenses/{n}" for n in licences}
if names != expected:
    sys.exit(f"wheel: surplus {sorted(names - expected)}, missing {sorted(expected - names)}")
expression = metadata["License-Expression"]
if expression != "Apache-2.0 AND CC-BY-NC-4.0" or metadata["Requires-Python"] != ">=3.11":
    sys.exit(f"wheel metadata: {expression}, {metadata['Requires-Python']}")
if metadata.get_all("License-File") != licences:
    sys.exit(f"wheel metadata: {metadata.get_all('License-File')}")

with tarfile.open(sdist) as archive:
    names = {m.name.split("/", 1)[1] for m in archive.getmembers() if m.isfile()}
needed = package | {
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "setup.cfg",
    "pyproject.toml",
}
needed |= {str(p) for top in ("tests", "examples", "docs") for p in Path(top).rglob("*") if p.is_file()}
needed = {n for n in needed if not re.search(r"__pycache__|/_build/|/\.", n)}
if needed - names:
    sys.exit(f"sdist: missing {sorted(needed - names)}")
surplus = {n for n in names - needed if not re.match(r"(mfsf2\.egg-info/.*|PKG-INFO|MANIFEST\.in)$", n)}
if surplus:
    sys.exit(f"sdist: surplus {sorted(surplus)}")
print(f"{wheel.name}: {len(expected)} files; {sdist.name}: {len(names)} files")
