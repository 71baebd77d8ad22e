from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.features.build.build_options import Annotation, BuildExport
from jaula.features.build.builder.image_index import annotations_of, check_annotations
from jaula.spec.image_documents import CONFIG, Descriptor, Index, Manifest, Platform, decode, encode

AMD, ARM = Platform("amd64", "linux"), Platform("arm64", "linux", "v8")


def export(*annotations: Annotation, oci_types: bool = True) -> BuildExport:
    return BuildExport(kind="oci", annotations=annotations, oci_types=oci_types)


def test_annotations_of_a_platform_replace_the_general_ones() -> None:
    made = export(
        Annotation("manifest", "a", "arm", "linux/arm64"),
        Annotation("manifest", "a", "all"),
        Annotation("manifest", "b", "all"),
        Annotation("manifest-descriptor", "c", "amd", "linux/amd64"),
        Annotation("index", "d", "any", "linux/arm64"),
    )
    assert annotations_of(made, "manifest", ARM) == {"a": "arm", "b": "all"}
    assert annotations_of(made, "manifest", AMD) == {"a": "all", "b": "all"}
    assert annotations_of(made, "manifest-descriptor", AMD) == {"c": "amd"}
    assert annotations_of(made, "manifest-descriptor", ARM) == {}
    assert annotations_of(made, "index") == {"d": "any"}
    check_annotations(made, [AMD, ARM], index=True)


@pytest.mark.parametrize(
    ("annotation", "oci_types", "text"),
    [
        (Annotation("manifest", "a", "b", "linux/arm64"), True, "no platform linux/arm64"),
        (Annotation("index", "a", "b"), True, "not supported for single platform"),
        (Annotation("index-descriptor", "a", "b"), True, "not supported for single platform"),
        (Annotation("manifest-descriptor", "a", "b"), False, "oci-mediatypes=false"),
    ],
)
def test_annotations_without_a_place_are_refused(
    annotation: Annotation, oci_types: bool, text: str
) -> None:
    made = export(annotation, oci_types=oci_types)
    with pytest.raises(InvalidRequest, match=text):
        check_annotations(made, [AMD], index=False)


def test_documents_without_annotations_have_no_member_for_them() -> None:
    config = Descriptor(CONFIG, "sha256:" + "0" * 64, 1)
    assert b"annotations" not in encode(Manifest(config=config, layers=()))
    assert b"annotations" not in encode(Index())
    data = encode(Manifest(config=config, layers=(), annotations={"b": "2", "a": "1"}))
    assert decode(data, Manifest, "x").annotations == {"a": "1", "b": "2"}
    assert b'"a":"1","b":"2"' in data
