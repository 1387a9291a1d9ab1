"""What a run says it was made with."""

import json

from PIL import Image


def test_corrupt_images_are_named_skipped_and_counted(gan_train, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(6):
        Image.new("RGB", (20, 20), (40 * i, 0, 90)).save(folder / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff this is no JPEG")
    done = gan_train(
        *("dataset=images", f"dataset.root={folder}", "dataset.size=16", "architecture=mlp_layernorm"),
        *("trainer.steps=2", "trainer.batch_size=4", f"hydra.run.dir={tmp_path / 'run'}"),
    )
    assert done.returncode == 0, done.stderr
    assert "broken.jpg" in done.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["data"]["skipped"] == 1
    assert manifest["data"]["skipped_files"] == ["broken.jpg"]
    assert manifest["data"]["shape"] == [3, 16, 16]
    # latent 100 -> 200 LN -> 3·16·16, by hand
    assert manifest["parameters"]["generator"] == 100 * 200 + 200 + 2 * 200 + 200 * 768 + 768
    assert manifest["memory_mib"]["parameters"] > 0
    assert manifest["wall_seconds"] > 0
