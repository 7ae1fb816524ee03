// The page of `edgeseg serve`: a live source, or pictures that are dropped into it.
"use strict";

const $ = (id) => document.getElementById(id);
const STAGES = ["preprocess", "inference", "upsample_argmax"];
const LARGEST = 8e6; // pixels; larger pictures are made smaller before they are sent
const FORMATS = ["image/jpeg", "image/png", "image/webp", "image/bmp"];
let engine;

// ---------------------------------------------------------------------------- what is shown beside

function setState(state, words) {
  if ($("state").dataset.state === state && $("state").textContent === words) return;
  $("state").dataset.state = state;
  $("state").textContent = words;
}

function showError(sentence) {
  $("error").hidden = !sentence;
  $("error").textContent = sentence || "";
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function showEngine() {
  const { width, height } = engine.input;
  const facts = {
    name: engine.name,
    input: `${width} × ${height}`,
    "runs on": `${engine.backend}, ${engine.device}`,
    precision: engine.precision,
    threads: engine.threads,
    mIoU: engine.miou === null ? "not measured" : `${(100 * engine.miou).toFixed(1)} %`,
  };
  for (const [name, value] of Object.entries(facts)) {
    const row = element("div");
    row.append(element("dt", "", name), element("dd", "", value));
    $("engine").append(row);
  }
}

function swatch([red, green, blue]) {
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const square = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  picture.setAttribute("viewBox", "0 0 10 10");
  picture.setAttribute("aria-hidden", "true");
  for (const [name, value] of Object.entries({ width: 10, height: 10, rx: 2.5 }))
    square.setAttribute(name, value);
  square.setAttribute("fill", `rgb(${red},${green},${blue})`);
  picture.append(square);
  return picture;
}

/** One row for each class; `choose` makes buttons of them. */
function makeLegend(choose) {
  engine.classes.forEach((name, id) => {
    const row = element(choose ? "button" : "div", choose ? "" : "row");
    const share = element("span", "share");
    share.append(element("i"));
    share.setAttribute("aria-hidden", "true");
    row.append(
      swatch(engine.palette[id]), element("span", "name", name), share, element("span", "area", "–"));
    if (choose) {
      row.type = "button";
      row.setAttribute("aria-pressed", "false");
      row.addEventListener("click", () => choose(id));
    }
    const item = element("li");
    item.append(row);
    $("legend").append(item);
  });
}

function showAreas(areas) {
  document.querySelectorAll("#legend li > *").forEach((row, id) => {
    const percent = 100 * areas[id];
    row.querySelector(".share i").style.width = `${percent}%`;
    row.querySelector(".area").textContent = `${percent.toFixed(1)} %`;
    row.classList.toggle("none", percent < 0.05);
  });
}

function showTimes(times, fps) {
  const spent = STAGES.map((stage) => times[stage]);
  const total = times.total || 1;
  document.querySelectorAll("#bar i").forEach((part, index) => {
    part.style.width = `${(100 * spent[index]) / total}%`;
  });
  document.querySelectorAll("#stages dd").forEach((number, index) => {
    number.textContent = `${spent[index].toFixed(2)} ms`;
  });
  $("total").textContent = times.total.toFixed(1);
  if (fps) $("fps").textContent = fps.toFixed(1);
}

// ----------------------------------------------------------------------------------- a live source

/** Frames come as motion JPEG, numbers as events; both only while somebody looks. */
function watch() {
  const live = $("live");
  let events, again, paused = false, smooth;

  function connect() {
    disconnect();
    live.src = `live.mjpg?${Date.now()}`;
    events = new EventSource("live");
    events.onmessage = (event) => show(JSON.parse(event.data));
    events.onerror = () => { // the server is gone, or refused: ask again, picture included
      disconnect();
      setState("gone", "server gone");
      veil("The server does not answer; trying again.");
      again = setTimeout(connect, 1500);
    };
  }

  function disconnect() {
    clearTimeout(again);
    if (events) events.close();
    live.removeAttribute("src"); // ends the stream
  }

  function show(facts) {
    if (facts.state === "lost") {
      setState("lost", "source lost");
      veil(facts.message);
      smooth = undefined;
      return;
    }
    setState("live", "live");
    veil("");
    live.hidden = false;
    $("still").hidden = true;
    // Smoothed, so that the numbers can be read.
    smooth = smooth || facts.timings_ms;
    for (const name in smooth) smooth[name] += 0.2 * (facts.timings_ms[name] - smooth[name]);
    showTimes(smooth, facts.fps);
    showAreas(facts.areas);
  }

  function veil(words) {
    $("veil").hidden = !words;
    $("veil").textContent = words;
  }

  function hold() {
    const still = $("still");
    if (!live.naturalWidth) return;
    still.width = live.naturalWidth;
    still.height = live.naturalHeight;
    still.getContext("2d").drawImage(live, 0, 0);
    still.hidden = false;
    live.hidden = true;
  }

  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", paused);
    $("pause").textContent = paused ? "Resume" : "Pause";
    if (paused) {
      hold();
      disconnect();
      veil("");
      setState("wait", "paused");
    } else {
      setState("wait", "connecting");
      connect();
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (paused) return;
    if (document.hidden) {
      hold();
      disconnect();
    } else {
      connect();
    }
  });

  makeLegend();
  for (const id of ["pause", "full", "fps-box"]) $(id).hidden = false;
  live.hidden = false;
  if (!document.hidden) connect();
}

// -------------------------------------------------------------------------------- dropped pictures

function takePictures() {
  const frame = $("frame"), labels = $("labels");
  let ids, chosen = null, busy = false, waiting = null;

  async function take(file) {
    if (busy) {
      waiting = file; // the newest counts
      return;
    }
    busy = true;
    showError("");
    setState("busy", "labelling");
    try {
      await label(file);
      setState("ready", "ready");
    } catch (error) {
      setState("ready", "ready");
      showError(error.message);
    }
    busy = false;
    if (waiting) {
      const next = waiting;
      waiting = null;
      take(next);
    }
  }

  async function label(file) {
    let picture;
    try {
      picture = await createImageBitmap(file);
    } catch {
      throw new Error(`${file.name || "This"} is no picture that the browser can show.`);
    }
    const body = await fitting(file, picture);
    let response;
    try {
      response = await fetch("predict?output=labels", {
        method: "POST", body, headers: { "Content-Type": body.type },
      });
    } catch {
      throw new Error("The server does not answer. Is it still running?");
    }
    if (!response.ok) {
      const { error } = await response.json().catch(() => ({ error: response.statusText }));
      throw new Error(error[0].toUpperCase() + error.slice(1) + ".");
    }
    const map = await createImageBitmap(await response.blob(), { colorSpaceConversion: "none" });
    for (const canvas of [frame, labels]) {
      canvas.width = map.width;
      canvas.height = map.height;
    }
    frame.getContext("2d").drawImage(picture, 0, 0, map.width, map.height);
    const context = labels.getContext("2d", { willReadFrequently: true });
    context.drawImage(map, 0, 0);
    const grey = context.getImageData(0, 0, map.width, map.height).data;
    ids = new Uint8Array(map.width * map.height);
    const counts = new Array(256).fill(0);
    for (let pixel = 0; pixel < ids.length; pixel++) counts[(ids[pixel] = grey[4 * pixel])]++;
    const labelled = ids.length - counts[255] || 1;
    showAreas(engine.classes.map((_, id) => counts[id] / labelled));
    showTimes(times(response.headers.get("Server-Timing") || ""));
    choose(null);
    $("drop").hidden = true;
    for (const id of ["layers", "blend", "keep", "full", "legend-hint"]) $(id).hidden = false;
  }

  /** The file itself, or a smaller JPEG where it is too large, or in another format. */
  async function fitting(file, picture) {
    const pixels = picture.width * picture.height;
    const most = Math.min(LARGEST, engine.limits.max_pixels);
    if (pixels <= most && file.size <= engine.limits.max_body && FORMATS.includes(file.type))
      return file;
    const scale = Math.min(1, Math.sqrt(most / pixels));
    const small = document.createElement("canvas");
    small.width = Math.max(1, Math.floor(picture.width * scale));
    small.height = Math.max(1, Math.floor(picture.height * scale));
    small.getContext("2d").drawImage(picture, 0, 0, small.width, small.height);
    return new Promise((done) => small.toBlob(done, "image/jpeg", 0.92));
  }

  function times(header) {
    const found = { total: 0 };
    for (const [, name, ms] of header.matchAll(/(\w+);dur=([\d.]+)/g)) found[name] = Number(ms);
    return found;
  }

  /** Show one class alone, or all of them. */
  function choose(id) {
    chosen = id === chosen ? null : id;
    document.querySelectorAll("#legend button").forEach((button, index) => {
      button.setAttribute("aria-pressed", index === chosen);
    });
    if (!ids) return;
    const context = labels.getContext("2d");
    const colours = context.createImageData(labels.width, labels.height);
    const table = new Uint32Array(256); // bytes R, G, B, A, lowest first
    engine.palette.forEach(([red, green, blue], index) => {
      const seen = chosen === null || chosen === index;
      table[index] = seen ? (255 << 24) | (blue << 16) | (green << 8) | red : 0;
    });
    new Uint32Array(colours.data.buffer).set(Uint32Array.from(ids, (value) => table[value]));
    context.putImageData(colours, 0, 0);
  }

  function tell(event) {
    const box = labels.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    const column = Math.floor((x / box.width) * labels.width);
    const row = Math.floor((y / box.height) * labels.height);
    const name = ids && engine.classes[ids[row * labels.width + column]];
    $("tip").hidden = !name;
    $("tip").textContent = name || "";
    $("tip").style.left = `${x}px`;
    $("tip").style.top = `${y}px`;
  }

  function keep() {
    const both = document.createElement("canvas");
    both.width = frame.width;
    both.height = frame.height;
    const context = both.getContext("2d");
    context.drawImage(frame, 0, 0);
    context.globalAlpha = $("opacity").value / 100;
    context.drawImage(labels, 0, 0);
    both.toBlob((blob) => {
      const link = element("a");
      link.href = URL.createObjectURL(blob);
      link.download = "overlay.png";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }, "image/png");
  }

  const fade = () => { labels.style.opacity = $("opacity").value / 100; };
  $("opacity").addEventListener("input", fade);
  $("keep").addEventListener("click", keep);
  $("file").addEventListener("change", (event) => {
    if (event.target.files[0]) take(event.target.files[0]);
    event.target.value = ""; // the same file again is a change
  });
  labels.addEventListener("pointermove", tell);
  labels.addEventListener("pointerleave", () => { $("tip").hidden = true; });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files[0]) take(event.clipboardData.files[0]);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("stage").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("stage").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("stage").classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });

  makeLegend(choose);
  fade();
  for (const id of ["drop", "choose"]) $(id).hidden = false;
  setState("ready", "ready");
}

// ------------------------------------------------------------------------------------------- start

$("full").addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else $("stage").requestFullscreen();
});

async function start() {
  try {
    engine = await (await fetch("engine")).json();
  } catch {
    setState("gone", "server gone");
    setTimeout(start, 1500);
    return;
  }
  showEngine();
  if (engine.source === null) {
    takePictures();
  } else {
    $("source").textContent = engine.source;
    document.title = `${engine.source} – edgeseg`;
    watch();
  }
}

start();
