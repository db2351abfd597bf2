// Loads a TypeScript file of the client's for a test in plain Node: bundled by esbuild, and never anything of VS Code.
import { build } from 'esbuild';
import { fileURLToPath } from 'node:url';

/** Return the exports of `src/<path>`. */
export async function load(path) {
  const entry = fileURLToPath(new URL(`../src/${path}`, import.meta.url));
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    logLevel: 'error',
  });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString('base64')}`);
}
