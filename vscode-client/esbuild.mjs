// Bundles the extension (Node, CommonJS) and the panel (browser). The language client is a file of its own, loaded
// after activation, so that activating costs no more than registering.
import * as esbuild from 'esbuild';
import { cpSync, existsSync, mkdirSync } from 'node:fs';

const production = process.argv.includes('--production');
const common = { bundle: true, minify: production, sourcemap: !production, logLevel: 'info', target: 'es2022' };
const host = { ...common, platform: 'node', format: 'cjs', external: ['vscode', './connection.js'] };

const builds = [
  { ...host, entryPoints: ['src/extension.ts'], outfile: 'dist/extension.js' },
  { ...host, entryPoints: ['src/connection.ts'], outfile: 'dist/connection.js', external: ['vscode'] },
  {
    ...common, platform: 'browser', format: 'iife', outdir: 'dist', entryNames: '[name]',
    entryPoints: { panel: 'src/panel/main.tsx' }, loader: { '.ttf': 'file' }, assetNames: '[name]',
  },
];

mkdirSync('dist', { recursive: true });
if (existsSync('media')) cpSync('media', 'dist/media', { recursive: true });
if (process.argv.includes('--watch')) {
  await Promise.all(builds.map(async (build) => (await esbuild.context(build)).watch()));
} else {
  await Promise.all(builds.map((build) => esbuild.build(build)));
}
