// Shows the volumes in #viewer-data with NiiVue; nothing runs before the reader asks for it.
(() => {
  const element = (id) => document.getElementById(id);
  const start = element("viewer-start"), stage = element("viewer-stage"), readout = element("viewer-readout");
  const rgb = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const say = (text) => { readout.textContent = text; };

  function describe(location, data) {
    const at = Object.fromEntries(location.values.map((entry) => [entry.id, entry.value]));
    const value = (key) => at[data.ids[key]] ?? 0;
    const bits = Math.round(value("structures"));
    const inside = data.structures.filter((s) => bits & s.bit).map((s) => s.name).join(", ") || "no target";
    const [x, y, z] = Array.from(location.mm, (v) => v.toFixed(1).replace("-", "−"));
    const margin = value("margin") > 0 ? `${value("margin").toFixed(1)} mm from the GTV` : "no margin here";
    const density = (100 * value("density")).toFixed(1);
    return `Density ${density} % · ${margin} · inside ${inside} · at x ${x}, y ${y}, z ${z} mm (RAS)`;
  }

  async function open() {
    start.disabled = true;
    stage.hidden = false;
    const data = JSON.parse(element("viewer-data").textContent);
    const nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0, 0.85, 0.6, 0.8], crosshairWidth: 1, isColorbar: false,
      dragAndDropEnabled: false, multiplanarShowRender: niivue.SHOW_RENDER.NEVER, loadingText: "",
      isRadiologicalConvention: true, sagittalNoseLeft: true, isNearestInterpolation: true,
      fontColor: [1, 1, 1, 1], logLevel: "warn",
    });
    await nv.attachToCanvas(element("viewer-canvas"));
    data.ids = {};
    for (const layer of data.layers) {
      let colormap = layer.colour || "gray";
      if (colormap.startsWith("#")) {
        const [r, g, b] = rgb(colormap);
        colormap = `outline-${layer.key}`;
        nv.addColormap(colormap, { R: [r, r], G: [g, g], B: [b, b], A: [0, 255], I: [0, 255] });
      }
      const volume = await niivue.NVImage.loadFromBase64({
        base64: layer.data, name: `${layer.key}.nii.gz`, colormap, opacity: layer.opacity,
        cal_min: layer.low, cal_max: layer.high,
      });
      nv.addVolume(volume);
      data.ids[layer.key] = volume.id;
      if (layer.colour) control(nv, layer, volume);
    }
    nv.onLocationChange = (location) => say(describe(location, data));
    nv.setSliceType(nv.sliceTypeMultiplanar);
    const [cx, cy, cz] = data.centre_mm;
    nv.scene.crosshairPos = nv.mm2frac([cx, cy, cz]);
    nv.updateGLVolume();
    nv.createOnLocationChange();
    for (const box of document.querySelectorAll("input[name=viewer-plane]")) {
      box.addEventListener("change", () => nv.setSliceType(nv[`sliceType${box.value}`]));
    }
    element("viewer-canvas").focus();
    window.gliodilViewer = nv;
  }

  function control(nv, layer, volume) {
    const row = document.createElement("div");
    const label = document.createElement("label"), box = document.createElement("input");
    const swatch = document.createElement("span"), slider = document.createElement("input");
    box.type = "checkbox";
    box.checked = layer.opacity > 0;
    box.id = `viewer-layer-${layer.key}`;
    slider.type = "range";
    Object.assign(slider, { min: 0, max: 1, step: 0.05, value: layer.shown });
    slider.setAttribute("aria-label", `Opacity of ${layer.name}`);
    swatch.className = "swatch";
    swatch.style.background = layer.colour.startsWith("#") ? layer.colour : "none";
    const apply = () => {
      const index = nv.volumes.findIndex((v) => v.id === volume.id);
      nv.setOpacity(index, box.checked ? Number(slider.value) : 0);
    };
    box.addEventListener("change", apply);
    slider.addEventListener("input", apply);
    label.append(box, swatch, ` ${layer.name}`);
    row.append(label, slider);
    element("viewer-layers").append(row);
  }

  start.addEventListener("click", () => open().catch((error) => {
    stage.hidden = true;
    say(`The viewer could not start (${error.message || error}); it needs a browser with WebGL 2. ` +
      "The figures on this page show the same.");
  }));
})();
