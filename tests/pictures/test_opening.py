"""Pictures of every odd kind: read right, or refused with a word that helps."""

import numpy
import pytest
from PIL import Image

from rerouting.core.errors import UserError
from rerouting.core.prompts import Prompt
from rerouting.pictures import opening
from rerouting.pictures.opening import identity, named, open_picture


def saved(picture, file, **more):
    picture.save(file, **more)
    return str(file)


def test_what_the_package_makes_needs_no_file():
    assert open_picture("drawn:test/5").size == (96, 96)
    assert open_picture("blank:30x20").size == (30, 20)
    assert numpy.array(open_picture("written:Hello")).min() == 0
    assert open_picture("written:Hello").tobytes() != open_picture("steps:Hello").tobytes()
    assert identity("drawn:test/5") == "drawn:test/5"


@pytest.mark.parametrize("reference", ["drawn:", "drawn:test", "blank:3", "written:", "steps:  "])
def test_a_reference_that_means_nothing(reference):
    with pytest.raises(UserError, match="is no picture"):
        open_picture(reference)


def test_greyscale_cmyk_palette_and_transparency_become_rgb(tmp_path):
    grey = saved(Image.new("L", (4, 3), 90), tmp_path / "grey.png")
    assert open_picture(grey).getpixel((0, 0)) == (90, 90, 90)
    cmyk = saved(Image.new("CMYK", (4, 3), (0, 255, 255, 0)), tmp_path / "cmyk.jpg", quality=95)
    red = open_picture(cmyk).getpixel((0, 0))
    assert red[0] > 200 and red[1] < 60 and red[2] < 60
    clear = saved(Image.new("RGBA", (4, 3), (0, 0, 0, 0)), tmp_path / "clear.png")
    assert open_picture(clear).getpixel((0, 0)) == (255, 255, 255)
    palette = saved(Image.new("RGB", (4, 3), (10, 200, 30)).convert("P"), tmp_path / "palette.gif")
    assert open_picture(palette).mode == "RGB"


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    file = saved(frames[0], tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert open_picture(file).getpixel((0, 0))[0] > 200


def test_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    file = saved(Image.new("RGB", (6, 2)), tmp_path / "turned.jpg", exif=exif)
    assert open_picture(file).size == (2, 6)


def test_missing_corrupt_and_cut_off_files(tmp_path):
    with pytest.raises(UserError, match="there is no picture"):
        open_picture(str(tmp_path / "none.png"))
    with pytest.raises(UserError, match="there is no picture"):
        identity(str(tmp_path / "none.png"))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="holds no picture"):
        open_picture(str(tmp_path / "text.png"))
    file = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(UserError, match=r"cut\.png"):
        open_picture(str(file))
    with pytest.raises(UserError, match="cannot be read"):
        open_picture(str(tmp_path))


def test_without_pixels_too_large_and_too_deep(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="0 × 5 pixels"):
        open_picture("blank:0x5")
    monkeypatch.setattr(opening, "MOST_PIXELS", 10)
    with pytest.raises(UserError, match="4 × 3 pixels"):
        open_picture(saved(Image.new("RGB", (4, 3)), tmp_path / "huge.png"))
    monkeypatch.undo()
    deep = Image.fromarray(numpy.full((3, 4), 40_000, dtype=numpy.uint16))
    with pytest.raises(UserError, match="8 bits"):
        open_picture(saved(deep, tmp_path / "deep.png"))


def test_a_changed_file_is_another_picture(tmp_path):
    file = tmp_path / "one.png"
    first = identity(saved(Image.new("RGB", (4, 3), "red"), file))
    assert first == identity(str(file)) and len(first) == 64
    assert identity(saved(Image.new("RGB", (5, 3), "blue"), file)) != first


def test_a_prompt_is_known_by_its_tokens_and_its_pictures_content(tmp_path):
    file = tmp_path / "one.png"
    Image.new("RGB", (4, 4)).save(file)
    first = named(Prompt([1, 2], [str(file)]))
    assert named([1, 2]) == [1, 2] != first
    assert named(Prompt([1, 2], ["drawn:test/1"])) != named(Prompt([1, 2], ["drawn:test/2"]))
    Image.new("RGB", (5, 5)).save(file)
    assert named(Prompt([1, 2], [str(file)])) != first
