"""`make licences`: writes into docs/licences.md what the installed packages say of their licences."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "licences.md"
BEGIN, END = "<!-- made by `make licences` -->", "<!-- end -->"
SETS = ROOT / "kuberay" / "images" / "requirements"
IMAGES = {"cpu": ("cpu",), "head": ("head",), "vision": ("vision",), "llm": ("llm-base", "llm")}
NOT_STATED = "not stated"
# What packages write, by the SPDX identifier that is meant; `BSD` alone may be either of two.
SPELLINGS = {
    "Apache-2.0": (
        "apache", "apache 2.0", "apache 2.0 license", "apache license", "apache license 2.0", "apache software license",
        "apache license, version 2.0", "apache-2.0 license", "apache license version 2.0",
    ),
    "MIT": ("mit", "mit license"),
    "BSD": ("bsd", "bsd license", "bsd-derived (http://www.repoze.org/license.txt)"),
    "BSD-3-Clause": ("3-clause bsd license", "bsd 3-clause", "bsd 3-clause license", "bsd 3 clause"),
    "ISC": ("isc license", "isc license (iscl)"),
    "PSF-2.0": ("python software foundation license", "psf"),
    "Unlicense": ("the unlicense (unlicense)",),
    "MPL-2.0": ("mozilla public license 2.0 (mpl 2.0)", "mpl 2.0"),
    "AGPL-3.0-or-later": ("gnu affero general public license v3 or later (agplv3+)",),
    "GPL-2.0": ("gplv2",),
    "Intel, proprietary": ("intel end user license agreement for developer tools",),
}  # fmt: skip
IDENTIFIERS = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}
SPDX = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9.]+)+( (AND|OR|WITH) [A-Za-z0-9]+(-[A-Za-z0-9.]+)*)*")
PERMISSIVE = re.compile(
    r"0BSD|Apache-2\.0|BSD(-[23]-Clause)?|BSL-1\.0|CC0-1\.0|CNRI-Python|ISC|LLVM-exception|MIT(-0|-CMU)?|PSF-2\.0|"
    r"Unlicense|ZPL-2\.1|AND|OR|WITH"
)


def identifier(text: str) -> str | None:
    """Of the first line; None if it says nothing known."""
    line = text.strip().partition("\n")[0].strip()
    if "nvidia" in line.lower():
        return "NVIDIA, proprietary"
    return IDENTIFIERS.get(line.lower()) or (line if SPDX.fullmatch(line) else None)


def licence_of(package: Distribution) -> str:
    """The expression is exact; the older field, the classifiers and the file are read for what they mean."""
    for expression in package.metadata.get_all("License-Expression") or ():
        return identifier(expression) or expression
    for text in statements_of(package):
        if found := identifier(text):
            return found
    return NOT_STATED


def statements_of(package: Distribution) -> Iterator[str]:
    yield from package.metadata.get_all("License") or ()
    for classifier in package.metadata.get_all("Classifier") or ():
        if classifier.startswith("License ::"):
            yield classifier.rpartition("::")[2]
    for file in package.files or ():
        if ".dist-info" in str(file) and file.name.upper().startswith("LICEN"):
            yield file.read_text()


def is_permissive(licence: str) -> bool:
    return all(PERMISSIVE.fullmatch(word) for word in re.findall(r"[^\s()]+", licence))


def names_in(path: Path) -> list[str]:
    return re.findall(r"(?m)^([\w.-]+)==", path.read_text())


def installed() -> dict[str, str]:
    """Licences by package, of those in requirements/pinned.txt."""
    licences = {}
    for name in names_in(ROOT / "requirements" / "pinned.txt"):
        try:
            licences[name] = licence_of(distribution(name))
        except PackageNotFoundError as problem:
            raise SystemExit(f"error: {name} is not installed: make env") from problem
    return licences


def images_by_package() -> dict[str, str]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for image, files in IMAGES.items():
        for name in sorted({name for file in files for name in names_in(SETS / f"{file}.txt")}):
            found[name].append(image)
    return {name: ", ".join(images) for name, images in found.items()}


def tables(licences: Mapping[str, str]) -> Iterator[str]:
    yield from ("| licence | packages |", "|---|---|")
    for licence, count in sorted(Counter(licences.values()).items(), key=lambda row: (-row[1], row[0])):
        yield f"| {licence} | {count} |"
    yield from ("", "Those that are not permissive, or don't say:", "")
    yield from ("| licence | packages | images |", "|---|---|---|")
    images, groups = images_by_package(), defaultdict(list)
    for name, licence in licences.items():
        if not is_permissive(licence):
            groups[licence, images.get(name, "none: checks and tests")].append(f"`{name}`")
    for (licence, where), names in sorted(groups.items()):
        yield f"| {licence} | {', '.join(names)} | {where} |"


def main() -> None:
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    made = "\n".join(tables(installed()))
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")


if __name__ == "__main__":
    main()
