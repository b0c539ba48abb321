"""A provider's schema is read from the sources of generated classes; here from one that is written for it."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.terraform.provider_schema import SchemaError, Schemas

_PROVIDER = """
export class ShopProvider extends cdktf.TerraformProvider {
  // region - computed: false, optional: true, required: false
  private _region?: string;
  public get region() {
    return this._region;
  }
}
"""
_STORE = """
export class ShopStoreShelvesOutputReference extends cdktf.ComplexObject {
  // label - computed: false, optional: false, required: true
  private _label?: string;
  public get label() {
    return this.getStringAttribute('label');
  }
  // used - computed: true, optional: false, required: false
  public get used() {
    return this.getNumberAttribute('used');
  }
}
export class ShopStoreTimeoutsOutputReference extends cdktf.ComplexObject {
  // create - computed: false, optional: true, required: false
  private _create?: string;
  public get create() {
    return this.getStringAttribute('create');
  }
}
export class ShopStoreDoorsOutputReference extends cdktf.ComplexObject {
  // opened_at - computed: true, optional: false, required: false
  public get openedAt() {
    return this.getStringAttribute('opened_at');
  }
}
export class ShopStore extends cdktf.TerraformResource {
  // name - computed: false, optional: false, required: true
  private _name?: string;
  public get name() {
    return this.getStringAttribute('name');
  }
  // tags - computed: false, optional: true, required: false
  private _tags?: string[];
  public get tags() {
    return cdktf.Fn.tolist(this.getListAttribute('tags'));
  }
  // labels - computed: true, optional: true, required: false
  private _labels = new cdktf.StringMap(this, "labels");
  public get labels() {
    return this._labels;
  }
  // doors - computed: true, optional: false, required: false
  private _doors = new ShopStoreDoorsList(this, "doors", false);
  public get doors() {
    return this._doors;
  }
  // shelves - computed: false, optional: false, required: true
  private _shelves = new ShopStoreShelvesList(this, "shelves", true);
  public get shelves() {
    return this._shelves;
  }
  // first_shelf - computed: false, optional: true, required: false
  private _firstShelf = new ShopStoreShelvesOutputReference(this, "first_shelf");
  public get firstShelf() {
    return this._firstShelf;
  }
  // timeouts - computed: false, optional: true, required: false
  private _timeouts = new ShopStoreTimeoutsOutputReference(this, "timeouts");
  public get timeouts() {
    return this._timeouts;
  }
}
"""


def wheel(folder: Path, sources: dict[str, str]) -> Path:
    """As the package has them: JavaScript files whose source maps hold the TypeScript, in an archive in a wheel."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, source in sources.items():
            source_map = base64.b64encode(json.dumps({"sourcesContent": [source]}).encode()).decode()
            text = f"// compiled\n//# sourceMappingURL=data:application/json;base64,{source_map}".encode()
            entry = tarfile.TarInfo(f"package/lib/{name}/index.js")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    path = folder / "shop.whl"
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr("shop/_jsii/shop.jsii.tgz", packed.getvalue())
    return path


def test_arguments_blocks_and_what_the_provider_says_are_told_apart(tmp_path: Path) -> None:
    schemas = Schemas(wheel(tmp_path, {"provider": _PROVIDER, "store": _STORE})).of(["google_store"], [])
    optional = {"required": False, "optional": True, "computed": False}
    assert schemas["provider"] == {"attributes": {"region": {"type": "string", **optional}}, "blocks": {}}
    store = schemas["resources"]["google_store"]
    assert store["attributes"] == {
        "name": {"type": "string", "required": True, "optional": False, "computed": False},
        "tags": {"type": ["set", "string"], **optional},
        "labels": {"type": ["map", "string"], "required": False, "optional": True, "computed": True},
        "doors": {
            "type": ["list", ["object", {"opened_at": "string"}]],
            "required": False,
            "optional": False,
            "computed": True,
        },
    }
    assert {name: (b["nesting"], b["min"], b["max"]) for name, b in store["blocks"].items()} == {
        "shelves": ("set", 1, 0),
        "first_shelf": ("list", 0, 1),
        "timeouts": ("single", 0, 0),
    }
    assert store["blocks"]["shelves"]["block"]["attributes"].keys() == {"label", "used"}


def test_a_type_that_the_provider_does_not_have_is_left_out(tmp_path: Path) -> None:
    schemas = Schemas(wheel(tmp_path, {"provider": _PROVIDER, "store": _STORE}))
    assert schemas.of(["google_shop"], ["google_store"])["resources"] == {}
    assert schemas.of(["google_shop"], ["google_store"])["data_sources"] == {}


def test_what_is_not_understood_is_said(tmp_path: Path) -> None:
    odd = _STORE.replace("private _name?: string;", "").replace("this.getStringAttribute('name')", "this.odd()")
    schemas = Schemas(wheel(tmp_path, {"provider": _PROVIDER, "store": odd}))
    with pytest.raises(SchemaError, match="odd"):
        schemas.of(["google_store"], [])
