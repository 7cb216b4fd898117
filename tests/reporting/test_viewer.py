"""The interactive viewer: what is embedded is what was planned, and a browser shows it without complaint."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gliodil.reporting import report as report_module
from gliodil.reporting.jsonable import read_json, write_json
from gliodil.reporting.metrics import build_metrics
from gliodil.reporting.provenance import build_provenance
from gliodil.reporting.report import render_report
from gliodil.reporting.viewer import DENSITY_STEP, MARGIN_STEP_MM, niivue_bundle, save_viewer


@pytest.fixture
def folder(case, tmp_path: Path) -> Path:
    patient, fit, plans = case
    metrics = build_metrics(patient, fit, plans, wall_s=64.0, peak_memory_mb=321.0)
    write_json(metrics, tmp_path / "metrics.json")
    write_json(build_provenance(patient, fit, config={}), tmp_path / "provenance.json")
    save_viewer(patient, plans, tmp_path / "figures")
    return tmp_path


@pytest.fixture
def layers(folder: Path) -> dict[str, nib.Nifti1Image]:
    """Every embedded volume, as any reader of NIfTI sees it."""
    content = read_json(folder / "figures" / "viewer.json")
    return {
        layer["key"]: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(layer["data"])))
        for layer in content["layers"]
    }


def at(image: nib.Nifti1Image, world: np.ndarray) -> np.ndarray:
    index = np.rint(nib.affines.apply_affine(np.linalg.inv(image.affine), world)).astype(int)
    return np.asarray(image.dataobj)[tuple(index.T)]


def test_each_value_is_at_its_place_in_the_world(case, layers):
    _, _, plans = case
    inside = np.argwhere(plans.model.data != 0)
    world = nib.affines.apply_affine(plans.model.affine, inside)
    where = tuple(inside.T)
    np.testing.assert_allclose(
        at(layers["density"], world), plans.density.data[where], atol=DENSITY_STEP / 2 + 1e-6
    )
    np.testing.assert_allclose(
        at(layers["margin"], world), plans.margin.data[where], atol=MARGIN_STEP_MM / 2 + 1e-6
    )


def test_bits_tell_the_targets_a_point_is_in(case, folder, layers):
    patient, _, plans = case
    structures = {s["name"]: s["bit"] for s in read_json(folder / "figures/viewer.json")["structures"]}
    bits = np.asarray(layers["structures"].dataobj)
    volumes = {"GTV": plans.gtv, "Standard CTV": plans.standard, "Trimmed CTV": plans.trimmed}
    volumes |= {"Model CTV": plans.model, "Recurrence": patient.recurrence}
    assert set(structures) == set(volumes)
    for name, volume in volumes.items():
        expected = np.count_nonzero(volume.data)
        assert np.count_nonzero(bits.astype(int) & structures[name]) == expected, name


def test_outlines_lie_on_the_rim_of_their_target(case, layers):
    _, _, plans = case
    rim = np.asarray(layers["model"].dataobj)
    assert 0 < rim.sum() < np.count_nonzero(plans.model.data)
    world = nib.affines.apply_affine(layers["model"].affine, np.argwhere(rim))
    assert (at(nib.Nifti1Image(plans.model.data, plans.model.affine), world) != 0).all()


def test_without_pet_recurrence_and_image_there_are_fewer_layers(make_patient, make_fit, tmp_path):
    from gliodil.planning.plan import plan

    patient = make_patient(pet=False, recurrence=False)
    save_viewer(patient, plan(patient, make_fit(patient)), tmp_path)
    keys = [layer["key"] for layer in read_json(tmp_path / "viewer.json")["layers"]]
    assert keys == ["image", "density", "margin", "standard", "trimmed", "model", "gtv", "structures"]


def test_the_page_has_the_viewer_with_its_licence_or_does_without(folder, monkeypatch):
    if niivue_bundle() is None:
        pytest.skip("this nilearn does not bring NiiVue")
    page = render_report(folder).read_text(encoding="utf-8")
    assert 'id="viewer-start"' in page
    assert "Copyright (c) 2021, Niivue" in page
    assert not re.search(r"<script[^>]+src=", page)
    monkeypatch.setattr(report_module, "niivue_bundle", lambda: None)
    assert "viewer-start" not in render_report(folder).read_text(encoding="utf-8")


class Browser:
    """A headless Chromium, spoken to over its DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.write_message(
            json.dumps({"id": self._number, "method": method, "params": parameters})
        )
        while True:
            message = json.loads(await self._socket.read_message())
            if message.get("id") == self._number:
                return message.get("result", message)
            self.events.append(message)

    async def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(await self._socket.read_message()))

    async def js(self, expression: str) -> Any:
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str, *, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not await self.js(expression):
            assert time.monotonic() < deadline, expression
            await asyncio.sleep(0.1)

    @property
    def complaints(self) -> list[str]:
        """Errors on the console, uncaught exceptions, and everything fetched from elsewhere."""
        return [
            json.dumps(event)[:300]
            for event in self.events
            if event.get("method") == "Runtime.exceptionThrown"
            or (event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error")
            or (event.get("method") == "Runtime.consoleAPICalled" and event["params"]["type"] == "error")
        ]


async def use(port: str, url: str) -> dict[str, Any]:
    from tornado.httpclient import AsyncHTTPClient
    from tornado.websocket import websocket_connect

    tabs = json.loads((await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json")).body)
    address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    browser = Browser(await websocket_connect(address, max_message_size=2**26))
    await browser.open(url)
    seen: dict[str, Any] = {
        "readout before": await browser.js("document.getElementById('viewer-readout').textContent")
    }
    await browser.js("document.getElementById('viewer-start').click()")
    await browser.until("!!window.gliodilViewer || document.getElementById('viewer-readout').textContent")
    await browser.until("!!window.gliodilViewer", timeout_s=5)
    readout = "document.getElementById('viewer-readout').textContent"
    opacity = "gliodilViewer.volumes.find((v) => v.name.startsWith('density')).opacity"
    seen["readout"] = await browser.js(readout)
    seen["opacity"] = [await browser.js(opacity)]
    await browser.js("document.getElementById('viewer-layer-density').click()")
    seen["opacity"].append(await browser.js(opacity))
    await browser.js("document.getElementById('viewer-layer-density').click()")
    await browser.js(
        "(() => { const s = document.querySelector('[aria-label=\"Opacity of Density\"]');"
        " s.value = 0.9; s.dispatchEvent(new Event('input')); })()"
    )
    seen["opacity"].append(await browser.js(opacity))
    await browser.js("gliodilViewer.moveCrosshairInVox(6, 0, 0)")
    seen["readout moved"] = await browser.js(readout)
    seen["complaints"] = browser.complaints
    return seen


def test_a_browser_opens_the_viewer_toggles_layers_and_reads_out_without_complaint(folder, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or niivue_bundle() is None:
        pytest.skip("needs Chromium and a nilearn with NiiVue")
    pytest.importorskip("tornado", reason="needs tornado to talk to the browser")
    page = render_report(folder)
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--remote-debugging-port=0",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    flags += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    command = [chromium, *flags, "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            port = next(found[1] for line in lines if (found := re.search(r"ws://127\.0\.0\.1:(\d+)/", line)))
            seen = asyncio.run(asyncio.wait_for(use(port, page.as_uri()), 120))
        finally:
            process.kill()
    assert seen["complaints"] == []
    assert seen["readout before"] == ""
    assert seen["opacity"] == pytest.approx([0.45, 0.0, 0.9])
    assert re.search(r"Density \d+\.\d % · no margin here · inside .*GTV.* mm \(RAS\)", seen["readout"])
    assert re.search(
        r"Density \d+\.\d % · \d+\.\d mm from the GTV · inside .*Model CTV", seen["readout moved"]
    )
