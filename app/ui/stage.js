// The stage: a canvas that shows a run, as splats or as a mesh, while it grows and when it is done. page.js tells it what there is, by
// sds3dShow. World axes are those of sds3d: +z up, the front towards +x. The camera looks at the origin, at first as in the first view of the sheet.
(() => {
  const FOV = (40 * Math.PI) / 180, DISTANCE = 2.9, ELEVATION = (15 * Math.PI) / 180; // sds3d.cameras.orbit
  const SHEET = 256; // pixels of a view of the sheet
  const DILATION = 0.3; // pixels^2 of the sheet by which splats are widened there (ops/project_gaussians.py), and so here
  const FAINT = 1 / 255; // a splat ends where its alpha falls below
  const NEAR = 0.2, FAR = 10; // of what is drawn, in world units from the camera
  const NEARER = 0.0005; // of a wire before its face, in normalized depth
  const SLOW = 700, QUICK = 150; // milliseconds of an update, from which on fewer splats are asked for, and all of them again
  const LATE = 30; // milliseconds between frames from which on a moving object is drawn at half the resolution
  const TURN = 14000; // milliseconds of the turn of what is shown at first
  const CALM = matchMedia("(prefers-reduced-motion: reduce)");
  const CLAY = [0.8, 0.78, 0.75];

  // --- files ---------------------------------------------------------------------------------------------------------------------------------

  // sds3d/run/live.py has the layout. null for anything else.
  function readLive(buffer) {
    const view = new DataView(buffer);
    if (buffer.byteLength < 32 || view.getUint32(0, false) !== 0x5344534c || view.getUint8(4) !== 1) return null;
    const kind = view.getUint8(5), step = view.getUint32(8, true), count = view.getUint32(12, true), faces = view.getUint32(16, true);
    const low = view.getFloat32(20, true), high = view.getFloat32(24, true), bound = view.getFloat32(28, true);
    if (buffer.byteLength !== 32 + (kind === 0 ? 16 * count : 12 * faces + 9 * count)) return null;
    const place = (offset) => ((2 * view.getUint16(offset, true)) / 65535 - 1) * bound;
    if (kind === 0) {
      const splats = emptySplats(count);
      for (let i = 0, at = 32; i < count; i++, at += 16) {
        const byte = (offset) => view.getUint8(at + offset);
        const size = (offset) => Math.exp(low + (byte(offset) / 255) * (high - low));
        const [x, y, z] = [13, 14, 15].map((offset) => (byte(offset) - 128) / 127);
        setSplat(splats, i, [place(at), place(at + 2), place(at + 4)], [size(6), size(7), size(8)], [Math.sqrt(Math.max(0, 1 - x * x - y * y - z * z)), x, y, z]);
        splats.colors.set([byte(9), byte(10), byte(11), byte(12)], 4 * i);
      }
      return { ...splats, step };
    }
    const corners = new Uint32Array(buffer.slice(32, 32 + 12 * faces)), places = new Float32Array(3 * count);
    for (let i = 0; i < 3 * count; i++) places[i] = place(32 + 12 * faces + 2 * i);
    const colors = Float32Array.from(new Uint8Array(buffer, 32 + 12 * faces + 6 * count, 3 * count), (value) => value / 255);
    return { kind: "mesh", step, places, faces: corners, normals: smoothNormals(places, corners), colors };
  }

  // splats.ply of sds3d/export/splat_files.py: floats only. Colours are those of the constant harmonic. Its comment says which axis is up, if not +z.
  function readPly(buffer) {
    const bytes = new Uint8Array(buffer), start = new TextDecoder().decode(bytes.subarray(0, 65536));
    const end = start.indexOf("end_header\n") + 11;
    const names = [...start.slice(0, end).matchAll(/^property float (\w+)$/gm)].map((found) => found[1]);
    const count = Number(/^element vertex (\d+)$/m.exec(start)[1]);
    const rows = new Float32Array(buffer.slice(new TextEncoder().encode(start.slice(0, end)).length)), splats = emptySplats(count);
    const column = Object.fromEntries(names.map((name, index) => [name, index]));
    const byte = (value) => Math.round(255 * Math.min(1, Math.max(0, value)));
    const turn = TURNS[JSON.parse(/^comment sds3d (.*)$/m.exec(start)[1]).up ?? "z"];
    for (let i = 0; i < count; i++) {
      const of = (...wanted) => wanted.map((name) => rows[i * names.length + column[name]]);
      setSplat(splats, i, of("x", "y", "z"), of("scale_0", "scale_1", "scale_2").map(Math.exp), of("rot_0", "rot_1", "rot_2", "rot_3"), turn);
      splats.colors.set(of("f_dc_0", "f_dc_1", "f_dc_2").map((value) => byte(0.5 + 0.28209479177387814 * value)), 4 * i);
      splats.colors[4 * i + 3] = byte(1 / (1 + Math.exp(-of("opacity")[0])));
    }
    return splats;
  }

  // mesh.glb of sds3d/export/glb.py: one primitive with indices, normals, and a PNG texture or linear colours of the vertices. Its metadata say where it
  // was moved and how it was scaled, if it was (sds3d/export/placement.py).
  async function readGlb(buffer) {
    const view = new DataView(buffer), length = view.getUint32(12, true);
    const tree = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, length))), binary = 28 + length;
    const bytes = (index) => {
      const { byteOffset = 0, byteLength } = tree.bufferViews[index];
      return buffer.slice(binary + byteOffset, binary + byteOffset + byteLength);
    };
    const { attributes, indices, material } = tree.meshes[0].primitives[0];
    const array = (index) => new Float32Array(bytes(tree.accessors[index].bufferView));
    const upright = (index) => array(index).map((_, i, all) => all[i - (i % 3) + ((i + 2) % 3)]); // +y up to +z up
    const { linear, shift } = tree.asset.extras?.placed ?? { linear: [[1]], shift: [0, 0, 0] };
    const places = upright(attributes.POSITION).map((value, i) => (value - shift[i % 3]) / linear[0][0]);
    const mesh = { kind: "mesh", places, normals: upright(attributes.NORMAL) };
    mesh.faces = new Uint32Array(bytes(tree.accessors[indices].bufferView));
    const texture = tree.materials?.[material]?.pbrMetallicRoughness?.baseColorTexture;
    if (texture !== undefined) {
      const image = tree.images[tree.textures[texture.index].source];
      mesh.uvs = array(attributes.TEXCOORD_0);
      mesh.image = await createImageBitmap(new Blob([bytes(image.bufferView)], { type: image.mimeType }), { colorSpaceConversion: "none" });
    } else {
      mesh.colors = array(attributes.COLOR_0).map((value) => (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055));
    }
    return mesh;
  }

  const emptySplats = (count) => ({
    kind: "splats", count, places: new Float32Array(3 * count), covariances: new Float32Array(6 * count), colors: new Uint8Array(4 * count),
  });

  // World axes from those of a file with another one up: of each, its axis there and its sign.
  const TURNS = { y: [[2, 1], [0, 1], [1, 1]], "-y": [[2, -1], [0, 1], [1, -1]], z: [[0, 1], [1, 1], [2, 1]] };

  // Row i of the splats: the covariance R S S R^T as xx, xy, xz, yy, yz, zz; quaternions are wxyz.
  function setSplat(splats, i, place, scales, [w, x, y, z], turn = TURNS.z) {
    const rotation = [
      1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
      2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
      2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ];
    const axes = rotation.map((_, k) => { const [row, sign] = turn[Math.floor(k / 3)]; return sign * rotation[3 * row + (k % 3)] * scales[k % 3]; });
    const dot = (a, b) => axes[3 * a] * axes[3 * b] + axes[3 * a + 1] * axes[3 * b + 1] + axes[3 * a + 2] * axes[3 * b + 2];
    splats.places.set(turn.map(([axis, sign]) => sign * place[axis]), 3 * i);
    splats.covariances.set([dot(0, 0), dot(0, 1), dot(0, 2), dot(1, 1), dot(1, 2), dot(2, 2)], 6 * i);
  }

  function smoothNormals(places, faces) {
    const normals = new Float32Array(places.length);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
      const [ux, uy, uz] = [0, 1, 2].map((k) => places[b + k] - places[a + k]), [vx, vy, vz] = [0, 1, 2].map((k) => places[c + k] - places[a + k]);
      const normal = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
      for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) normals[corner + k] += normal[k];
    }
    return normals; // the shader makes them unit length
  }

  // --- drawing -------------------------------------------------------------------------------------------------------------------------------

  const SPLAT_SHADERS = [
    `#version 300 es
    layout(location = 0) in vec2 place; layout(location = 1) in vec2 corner; layout(location = 2) in vec4 color;
    out vec2 at; out vec4 tint;
    void main() { at = corner * 4.0; tint = color; gl_Position = vec4(place, 0, 1); }`,
    `#version 300 es
    precision mediump float;
    in vec2 at; in vec4 tint; out vec4 pixel;
    void main() {
      float alpha = tint.a * exp(-0.5 * dot(at, at));
      if (alpha < ${FAINT}) discard;
      pixel = vec4(tint.rgb * alpha, alpha);
    }`,
  ];
  const MESH_SHADERS = [
    `#version 300 es
    layout(location = 0) in vec3 place; layout(location = 1) in vec3 normal; layout(location = 2) in vec3 color;
    uniform mat3 view; uniform vec3 lens; uniform float nearer;
    out vec3 facing, tint;
    void main() {
      vec3 seen = view * place;
      float depth = lens.z - seen.z;
      facing = normal; tint = color;
      gl_Position = vec4(seen.xy * lens.xy, (depth * ${(FAR + NEAR).toFixed(3)} - ${(2 * FAR * NEAR).toFixed(3)}) / ${(FAR - NEAR).toFixed(3)} - nearer * depth, depth);
    }`,
    `#version 300 es
    precision highp float;
    in vec3 facing, tint; out vec4 pixel;
    uniform sampler2D image; uniform bool textured; uniform vec4 flatColor; uniform vec3 clay;
    uniform vec3 towards; uniform vec2 light; // ambient and diffuse
    void main() {
      vec3 color = clay.r > 0.0 ? clay : textured ? texture(image, tint.xy).rgb : tint;
      float lit = light.x + light.y * max(0.0, dot(normalize(facing), towards));
      pixel = flatColor.a < 2.0 ? flatColor : vec4(color * lit, 1);
    }`,
  ];
  const NO_FLAT = [0, 0, 0, 2]; // a flat colour that is none

  // Draws splats or a mesh into a canvas over nothing, so that the page's colour shows behind. null without WebGL 2.
  function makeRenderer(canvas) {
    const gl = canvas.getContext("webgl2", { alpha: true, antialias: false, powerPreference: "low-power" });
    if (!gl) return null;
    const splatProgram = link(SPLAT_SHADERS), meshProgram = link(MESH_SHADERS);
    const uniform = Object.fromEntries(
      ["view", "lens", "nearer", "image", "textured", "flatColor", "clay", "towards", "light"].map((name) => [name, gl.getUniformLocation(meshProgram, name)]),
    );
    const texture = gl.createTexture(), splatArray = gl.createVertexArray(), meshArray = gl.createVertexArray();
    const buffers = Object.fromEntries(["quads", "quadIndex", "places", "normals", "colors", "faces", "edges"].map((name) => [name, gl.createBuffer()]));
    let quads = null; // the four corners of every splat, as they are sent
    let uploaded = null; // the mesh that the buffers hold
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);

    function link(sources) {
      const program = gl.createProgram();
      [gl.VERTEX_SHADER, gl.FRAGMENT_SHADER].forEach((kind, index) => {
        const shader = gl.createShader(kind);
        gl.shaderSource(shader, sources[index]);
        gl.compileShader(shader);
        gl.attachShader(program, shader);
      });
      gl.linkProgram(program);
      if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(program));
      return program;
    }

    function fill(target, buffer, data, usage = gl.STATIC_DRAW) {
      gl.bindBuffer(target, buffer);
      gl.bufferData(target, data, usage);
    }

    function makeRoom(count) {
      if (quads && quads.floats.length >= 16 * count) return;
      const bytes = new ArrayBuffer(64 * count), index = new Uint32Array(6 * count);
      quads = { floats: new Float32Array(bytes), corners: new Int16Array(bytes), colors: new Uint32Array(bytes) };
      for (let i = 0; i < count; i++) index.set([4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 2, 4 * i + 1, 4 * i + 3], 6 * i);
      gl.bindVertexArray(splatArray);
      fill(gl.ELEMENT_ARRAY_BUFFER, buffers.quadIndex, index);
      fill(gl.ARRAY_BUFFER, buffers.quads, bytes.byteLength, gl.STREAM_DRAW);
      [[2, gl.FLOAT, false, 0], [2, gl.SHORT, true, 8], [4, gl.UNSIGNED_BYTE, true, 12]].forEach(([size, type, isUnit, offset], location) => {
        gl.enableVertexAttribArray(location);
        gl.vertexAttribPointer(location, size, type, isUnit, 16, offset);
      });
    }

    // Projects each splat (Zwicker et al. 2001), and writes the four corners of the ellipse at which it is FAINT, the farthest splat first.
    function writeQuads({ count, places, covariances, colors }, { view, lens }) {
      const [rx, ry, rz, ux, uy, uz, dx, dy, dz] = view, [across, up, distance] = lens;
      const order = farthestFirst(places, count, view), words = new Uint32Array(colors.buffer);
      const widen = DILATION * (2 / (lens.focal * SHEET)) ** 2; // in units of the image plane at distance 1
      let drawn = 0;
      for (let n = 0; n < count; n++) {
        const i = order[n], p = 3 * i, c = 6 * i, opacity = colors[4 * i + 3] / 255;
        const px = places[p], py = places[p + 1], pz = places[p + 2];
        const x = rx * px + ry * py + rz * pz, y = ux * px + uy * py + uz * pz, depth = distance - (dx * px + dy * py + dz * pz);
        if (opacity <= FAINT || depth < NEAR) continue;
        const ax = (rx + (dx * x) / depth) / depth, ay = (ry + (dy * x) / depth) / depth, az = (rz + (dz * x) / depth) / depth;
        const bx = (ux + (dx * y) / depth) / depth, by = (uy + (dy * y) / depth) / depth, bz = (uz + (dz * y) / depth) / depth;
        const sxx = covariances[c], sxy = covariances[c + 1], sxz = covariances[c + 2], syy = covariances[c + 3], syz = covariances[c + 4], szz = covariances[c + 5];
        const tx = sxx * bx + sxy * by + sxz * bz, ty = sxy * bx + syy * by + syz * bz, tz = sxz * bx + syz * by + szz * bz;
        const xx = ax * (sxx * ax + sxy * ay + sxz * az) + ay * (sxy * ax + syy * ay + syz * az) + az * (sxz * ax + syz * ay + szz * az) + widen;
        const xy = ax * tx + ay * ty + az * tz, yy = bx * tx + by * ty + bz * tz + widen;
        const half = (xx - yy) / 2, root = Math.sqrt(half * half + xy * xy), middle = (xx + yy) / 2;
        const reach = Math.sqrt(2 * Math.log(opacity / FAINT)), angle = 0.5 * Math.atan2(xy, half);
        const long = reach * Math.sqrt(middle + root), short = reach * Math.sqrt(Math.max(middle - root, 1e-12));
        const ex = Math.cos(angle) * long, ey = Math.sin(angle) * long, fx = -Math.sin(angle) * short, fy = Math.cos(angle) * short;
        const at = Math.round((reach / 4) * 32767);
        for (let k = 0; k < 4; k++) {
          const s = k & 1 ? 1 : -1, t = k & 2 ? 1 : -1, v = 16 * drawn + 4 * k;
          quads.floats[v] = (x / depth + s * ex + t * fx) * across;
          quads.floats[v + 1] = (y / depth + s * ey + t * fy) * up;
          quads.corners[2 * v + 4] = s * at;
          quads.corners[2 * v + 5] = t * at;
          quads.colors[v + 3] = words[i];
        }
        drawn++;
      }
      return drawn;
    }

    function drawSplats(splats, camera) {
      makeRoom(splats.count);
      const drawn = writeQuads(splats, camera);
      gl.enable(gl.BLEND);
      gl.disable(gl.DEPTH_TEST);
      gl.useProgram(splatProgram);
      gl.bindVertexArray(splatArray);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers.quads);
      gl.bufferSubData(gl.ARRAY_BUFFER, 0, quads.floats, 0, 16 * drawn);
      gl.drawElements(gl.TRIANGLES, 6 * drawn, gl.UNSIGNED_INT, 0);
    }

    function upload(mesh) {
      gl.bindVertexArray(meshArray);
      [[mesh.places, 3, buffers.places], [mesh.normals, 3, buffers.normals], [mesh.uvs ?? mesh.colors, mesh.uvs ? 2 : 3, buffers.colors]].forEach(
        ([data, size, buffer], location) => {
          fill(gl.ARRAY_BUFFER, buffer, data);
          gl.enableVertexAttribArray(location);
          gl.vertexAttribPointer(location, size, gl.FLOAT, false, 0, 0);
        },
      );
      if (mesh.image) {
        gl.bindTexture(gl.TEXTURE_2D, texture);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, mesh.image);
        gl.generateMipmap(gl.TEXTURE_2D);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
      }
      fill(gl.ELEMENT_ARRAY_BUFFER, buffers.faces, mesh.faces);
      fill(gl.ELEMENT_ARRAY_BUFFER, buffers.edges, Uint32Array.from({ length: 2 * mesh.faces.length }, (_, i) => {
        const corner = i >> 1, face = corner - (corner % 3); // an edge from each corner to the next of its face
        return mesh.faces[i % 2 ? face + ((corner + 1) % 3) : corner];
      }));
      uploaded = mesh;
    }

    function drawMesh(mesh, { view, lens }, mode, light, ink) {
      if (uploaded !== mesh) upload(mesh);
      gl.disable(gl.BLEND);
      gl.enable(gl.DEPTH_TEST);
      gl.useProgram(meshProgram);
      gl.bindVertexArray(meshArray);
      gl.uniformMatrix3fv(uniform.view, true, view);
      gl.uniform3fv(uniform.lens, lens);
      gl.uniform1i(uniform.textured, mesh.image ? 1 : 0);
      gl.uniform3fv(uniform.clay, mode === "clay" ? CLAY : [0, 0, 0]);
      const isLit = mode === "colour" && light && mesh.step === undefined; // what is growing brings its light in its colours
      const [x, y, z] = isLit ? light.direction : [0, 1, 2].map((k) => 0.3 * view[3 + k] - 0.2 * view[k] + view[6 + k]); // of clay: over the left shoulder
      gl.uniform3fv(uniform.towards, [x, y, z].map((value) => value / Math.hypot(x, y, z)));
      gl.uniform2fv(uniform.light, mode === "clay" ? [0.25, 0.8] : isLit ? [light.ambient, light.diffuse] : [1, 0]);
      gl.uniform4fv(uniform.flatColor, mode === "wire" ? [0, 0, 0, 0] : NO_FLAT);
      gl.uniform1f(uniform.nearer, 0);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers.faces);
      gl.drawElements(gl.TRIANGLES, mesh.faces.length, gl.UNSIGNED_INT, 0);
      if (mode !== "wire") return;
      gl.uniform4fv(uniform.flatColor, [...ink, 1]);
      gl.uniform1f(uniform.nearer, NEARER);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers.edges);
      gl.drawElements(gl.LINES, 2 * mesh.faces.length, gl.UNSIGNED_INT, 0);
    }

    return (scene, camera, mode, light, ink) => {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      if (scene?.kind === "splats") drawSplats(scene, camera);
      else if (scene) drawMesh(scene, camera, mode, light, ink);
    };
  }

  // Numbers of the splats by their depth, in 4096 steps.
  function farthestFirst(places, count, view) {
    const keys = new Uint16Array(count), starts = new Uint32Array(4097), order = new Uint32Array(count);
    for (let i = 0; i < count; i++) {
      const near = view[6] * places[3 * i] + view[7] * places[3 * i + 1] + view[8] * places[3 * i + 2];
      keys[i] = Math.min(4095, Math.max(0, (near / 2.4 + 0.5) * 4096));
      starts[keys[i] + 1]++;
    }
    for (let key = 0; key < 4096; key++) starts[key + 1] += starts[key];
    for (let i = 0; i < count; i++) order[starts[keys[i]]++] = i;
    return order;
  }

  // Where the camera is, as rows right, up, towards it; and its lens: the smaller side of the canvas has the sheet's field of view.
  function cameraOf({ yaw, pitch, zoom }, width, height) {
    const [c, s, e, u] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const focal = 1 / Math.tan(FOV / 2), side = Math.min(width, height);
    const lens = Object.assign([(focal * side) / width, (focal * side) / height, DISTANCE / zoom], { focal });
    return { view: [-s, c, 0, -u * c, -u * s, e, e * c, e * s, u], lens };
  }

  // --- the stage -----------------------------------------------------------------------------------------------------------------------------

  const front = () => ({ yaw: 0, pitch: ELEVATION, zoom: 1, isTouched: false });
  const group = () => ({ camera: front(), redraws: [] }); // stages that one camera sees

  let told = {}, main = null; // what page.js has said last, and what shows it
  window.sds3dShow = (what) => {
    told = what || {};
    main?.(told);
  };
  window.sds3dStage = (element) => {
    main = makeStage(element.querySelector(".stage"), group());
    main?.(told);
  };

  // Runs side by side: to turn one turns all.
  window.sds3dCompare = (element, watch) => {
    let canvases = [];
    function show() {
      for (const old of canvases) old.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext(); // a page has few
      const seen = group(), boxes = [...element.querySelectorAll(".stage")];
      canvases = boxes.map((box) => box.querySelector("canvas"));
      for (const box of boxes) makeStage(box, seen)?.(JSON.parse(box.dataset.stage));
      if (boxes.length) setTimeout(() => document.querySelector("#details-box").scrollIntoView(), 200); // once it is unfolded
    }
    watch("value", show);
    show(); // its tab may be made later than its value
  };

  // What shows a scene in a box; null without WebGL: the pictures are shown.
  function makeStage(box, seen) {
    const [canvas, sheet, hint] = ["canvas", "img", ".hint"].map((selector) => box.querySelector(selector));
    const buttons = [...box.querySelectorAll("[data-mode]")], place = box.closest("#show, .compared");
    const draw = makeRenderer(canvas);
    canvas.hidden = !draw;
    if (!draw) return null;
    let told = {}, run = "", isLost = false, wish = "colour", scenes = {}, sources = {}, isBusy = false, isSlow = false, isMoving = false, frame = 0;
    let drawnAt = 0, lag = 0; // when the last frame was drawn, and milliseconds between frames in a movement

    seen.redraws.push(redraw);

    function show(what) {
      if (isLost) return;
      told = what;
      if (told.run !== run) {
        [run, scenes, sources] = [told.run, {}, {}];
        if (seen.redraws.length === 1) seen.camera = front();
        if (told.turns && !CALM.matches) requestAnimationFrame((now) => turn(run, now, now));
      }
      canvas.hidden = !run;
      place.classList.toggle("staged", Boolean(run));
      hint.textContent = told.hint ?? "";
      load();
      arrange();
    }

    // Once around, unless somebody turns it or looks at something else.
    function turn(of, begun, now) {
      const share = Math.min(1, (now - begun) / TURN);
      if (of !== run || seen.camera.isTouched) return;
      seen.camera.yaw = share < 1 ? Math.PI * (1 - Math.cos(Math.PI * share)) : 0;
      isMoving = share < 1;
      redraw();
      if (isMoving) requestAnimationFrame((later) => turn(of, begun, later));
    }

    // The modes that there are something for, and the one that is shown: the person's wish, or what comes next to it.
    function arrange() {
      const has = { colour: scenes.mesh, clay: scenes.mesh, wire: scenes.mesh, splats: scenes.splats || told.splats, sheet: told.picture };
      const mode = has[wish] ? wish : ["colour", "splats"].find((name) => has[name]) || "";
      for (const button of buttons) {
        button.hidden = !has[button.dataset.mode];
        button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
      }
      sheet.hidden = mode !== "sheet";
      if (mode === "sheet" && sheet.getAttribute("src") !== told.picture) sheet.src = told.picture;
      hint.hidden = Boolean(mode);
      box.dataset.mode = mode;
      redraw();
    }

    // One at a time, and then what is newest: nothing piles up on a slow line.
    async function load() {
      if (isBusy) return;
      isBusy = true;
      for (let next = newest(); next; next = newest()) {
        const [slot, address, read] = next, of = run;
        sources[slot] = address;
        try {
          const scene = await read(address);
          if (of === run && scene) take(slot, scene);
        } catch (error) {
          if (slot !== "live") console.error(`${address}: ${error.message}`);
        }
      }
      isBusy = false;
    }

    // What is to be fetched: (where it goes, its address, what reads it).
    function newest() {
      const files = { live: fetchLive, mesh: async (address) => readGlb(await bytes(address)), splats: async (address) => readPly(await bytes(address)) };
      const wanted = ["live", "mesh", ...(wish === "splats" || !told.mesh ? ["splats"] : [])];
      const slot = wanted.find((name) => told[name] && told[name] !== sources[name]);
      return slot && [slot, told[slot], files[slot]];
    }

    function take(slot, scene) {
      if (slot === "live" && !sources.mesh && !sources.splats) scenes = { [scene.kind]: scene }; // one form at a time grows
      else if (slot !== "live") scenes = { ...(sources.splats ? scenes : {}), [scene.kind]: scene };
      arrange();
    }

    async function bytes(address) {
      const answer = await fetch(address);
      if (!answer.ok) throw new Error(String(answer.status));
      return answer.arrayBuffer();
    }

    async function fetchLive(address) {
      const begun = performance.now(), data = await bytes(isSlow ? address.replace("/live/all", "/live/few") : address);
      const took = performance.now() - begun;
      isSlow = isSlow ? took > QUICK : took > SLOW;
      return readLive(data);
    }

    function redraw() {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        const mode = box.dataset.mode, scene = mode === "splats" ? scenes.splats : scenes.mesh;
        const screen = Math.min(2, window.devicePixelRatio || 1);
        const now = performance.now();
        if (isMoving && now - drawnAt < 1000) lag += 0.2 * (Math.min(100, now - drawnAt) - lag);
        drawnAt = now;
        const scale = isMoving && lag > LATE ? 0.5 : scene?.kind === "mesh" ? Math.max(1.5, screen) : screen; // edges at rest are smoothed by the page
        const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.max(1, Math.round(side * scale)));
        if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
        const ink = getComputedStyle(canvas).color.match(/[\d.]+/g).slice(0, 3).map((value) => value / 255);
        draw(mode === "sheet" ? null : scene, cameraOf(seen.camera, width, height), mode, told.light, ink);
        Object.assign(canvas.dataset, { yaw: seen.camera.yaw.toFixed(3), step: scene?.step ?? "", kind: scene?.kind ?? "" });
      });
    }

    function move(yaw, pitch, zoom = 1) {
      const { camera } = seen;
      camera.isTouched = true;
      camera.yaw += yaw;
      camera.pitch = Math.min(1.5, Math.max(-1.5, camera.pitch + pitch));
      camera.zoom = Math.min(3, Math.max(0.5, camera.zoom * zoom));
      for (const again of seen.redraws) again();
    }

    const touching = new Map(); // pointers that are down, and where
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      touching.set(event.pointerId, [event.clientX, event.clientY]);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = touching.get(event.pointerId);
      if (!before) return;
      isMoving = true;
      const spread = () => { const [a, b] = [...touching.values()]; return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0; };
      const wide = spread();
      touching.set(event.pointerId, [event.clientX, event.clientY]);
      if (wide) move(0, 0, spread() / wide);
      else move((before[0] - event.clientX) * 0.01, (event.clientY - before[1]) * 0.01);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => {
        touching.delete(event.pointerId);
        isMoving = touching.size > 0;
        redraw();
      });
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      move(0, 0, Math.exp(-event.deltaY * 0.001));
    }, { passive: false });
    const keys = { ArrowLeft: [0.15, 0], ArrowRight: [-0.15, 0], ArrowUp: [0, 0.15], ArrowDown: [0, -0.15], "+": [0, 0, 1.15], "-": [0, 0, 1 / 1.15] };
    canvas.addEventListener("keydown", (event) => {
      if (event.key === "Home") seen.camera = front();
      else if (!keys[event.key]) return;
      event.preventDefault();
      move(...(keys[event.key] ?? [0, 0]));
    });
    canvas.addEventListener("webglcontextlost", () => { // the pictures are shown from now on
      isLost = true;
      for (const part of [canvas, sheet, hint, ...buttons]) part.hidden = true;
      place.classList.remove("staged");
    });
    for (const button of buttons) {
      button.addEventListener("click", () => {
        wish = button.dataset.mode;
        show(told);
      });
    }
    new ResizeObserver(redraw).observe(canvas);
    new MutationObserver(redraw).observe(document.body, { attributeFilter: ["class"] }); // another theme
    return show;
  }
})();
