// Python in Pyodide with a real fetch: fetching.mjs RUNTIME_FOLDER WHEEL PROGRAM
const [folder, wheel, program] = Deno.args;
const { loadPyodide } = await import(`file://${folder}/pyodide.mjs`);
const info = { arch: "wasm32", platform: "emscripten_5_0_3", abi_version: "2026_0", python: "3.14.2" };
const lockFileContents = JSON.stringify({ info, packages: {} });
const pyodide = await loadPyodide({ indexURL: `${folder}/`, lockFileContents, stdout: console.log });
pyodide.unpackArchive(await Deno.readFile(wheel), "wheel", { extractDir: "/package" });
pyodide.runPython("import sys; sys.path.insert(0, '/package')");
await pyodide.runPythonAsync(await Deno.readTextFile(program));
// Timers of timeouts that did not come would keep the process.
Deno.exit(0);
