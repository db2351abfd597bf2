// The panel's page: nothing but what the extension carries may load or run in it.

import { randomBytes } from 'node:crypto';
import * as vscode from 'vscode';

/** Where the panel's parts lie. */
export function panelRoot(extension: vscode.Uri): vscode.Uri {
  return vscode.Uri.joinPath(extension, 'dist');
}

/** Return the page's HTML. */
export function panelHtml(webview: vscode.Webview, extension: vscode.Uri): string {
  const nonce = randomBytes(18).toString('base64');
  const at = (name: string): string => webview.asWebviewUri(vscode.Uri.joinPath(panelRoot(extension), name)).toString();
  const policy = [
    "default-src 'none'",
    `script-src 'nonce-${nonce}'`,
    `style-src ${webview.cspSource}`,
    `font-src ${webview.cspSource}`,
    `img-src ${webview.cspSource} data:`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="${at('panel.css')}">
<title>Selfloop</title>
</head>
<body>
<div id="root"></div>
<script nonce="${nonce}" src="${at('panel.js')}"></script>
</body>
</html>`;
}
