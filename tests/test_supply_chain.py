"""Nothing is installed without a hash, and the documents say what is installed under which licence."""

import re
from pathlib import Path

from serve_app.tools.licences import BEGIN, DOCUMENT, END, identifier, installed, is_permissive, tables

ROOT = Path(__file__).resolve().parent.parent
SETS = ROOT / "kuberay" / "images" / "requirements"
PINNED = [
    *(ROOT / "requirements" / f"{name}.txt" for name in ("pinned", "uv")),
    *(SETS / f"{name}.txt" for name in ("cpu", "head", "vision", "llm-base", "llm")),
]
INSTALL = re.compile(r"\bpip (?:install|sync)\b[^&|;\n]*")
PIN = re.compile(r"[\w.-]+==\S+( --hash=sha256:[0-9a-f]{64})+")


def commands_of(path):
    """Lines without comments, continued ones joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    return re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))


def test_every_line_of_every_pinned_file_is_a_version_with_its_hashes():
    ours = {*(ROOT / "requirements").glob("*.txt"), *SETS.glob("*.txt")}
    without = {path.name for path in ours - set(PINNED)}
    assert without == {"overrides.txt", "overrides.numpy1.txt", "audit.txt"}
    for path in PINNED:
        lines = [line for line in commands_of(path).splitlines() if line]
        assert lines, path
        assert [line for line in lines if not PIN.fullmatch(line)] == [], path


def test_every_installation_asks_for_hashes_or_takes_nothing_from_an_index():
    for path in (ROOT / "Makefile", *sorted(SETS.parent.glob("*.Dockerfile"))):
        found = INSTALL.findall(commands_of(path))
        assert any("--require-hashes" in command for command in found), path
        for command in found:
            assert "--require-hashes" in command or {"--offline", "--no-deps"} <= set(command.split()), command


def test_hashes_are_written_whenever_versions_are():
    found = re.findall(r"pip compile[^&|;\n]*", commands_of(ROOT / "Makefile"))
    assert len(found) == 3
    assert [command for command in found if "--generate-hashes" not in command] == []
    version = re.search(r"(?m)^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text())[1]
    assert (ROOT / "requirements" / "uv.txt").read_text().startswith(f"uv=={version} ")


def test_an_accepted_vulnerability_has_an_id_a_pinned_package_and_a_reason():
    """As the Makefile reads it: a line that it overlooks would be no acceptance."""
    pinned = set(re.findall(r"(?m)^([\w.-]+)==", (ROOT / "requirements" / "pinned.txt").read_text()))
    lines = (ROOT / "requirements" / "audit.txt").read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("#"):
            found = re.fullmatch(r"(CVE|GHSA|PYSEC)-[0-9A-Za-z-]+ ([\w.-]+)", line)
            assert found, line
            assert found[2] in pinned, line
            assert before.startswith("# "), f"{line} has no reason above it"


def test_the_licences_that_are_written_down_are_those_of_what_is_installed():
    """`make licences` writes them."""
    made = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    assert made.strip().splitlines() == list(tables(installed()))


def test_what_packages_write_of_their_licence_is_read_for_what_it_means():
    for text, meant, permissive in (
        ("Apache Software License", "Apache-2.0", True), ("MIT License\n\nCopyright (c) 2022", "MIT", True),
        ("BSD License", "BSD", True), ("CC0-1.0 OR Apache-2.0", "CC0-1.0 OR Apache-2.0", True),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception", True),
        ("MPL-2.0 AND MIT", "MPL-2.0 AND MIT", False), ("GPLv2", "GPL-2.0", False), ("AGPL-3.0", "AGPL-3.0", False),
        ("LicenseRef-NVIDIA-Proprietary", "NVIDIA, proprietary", False), ("Other/Proprietary License", None, False),
        ("Copyright 2024, all rights reserved", None, False), ("", None, False),
    ):  # fmt: skip
        assert identifier(text) == meant, text
        assert is_permissive(meant or "not stated") is permissive, text
