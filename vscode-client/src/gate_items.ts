// How the nodes of the view "Waiting for You" look: label, icon, card on hover, and what a screen reader says.

import * as vscode from 'vscode';
import type { AppliedChange } from './gates';
import type { GateFile, GateInfo, GateReadResult } from './protocol';
import { firstLine, itemsOf, plural, sizeOf, visible, type Item } from './review_model';
import { commandCard, commandFacts, commandOf, fenced, hunkCard, proposalCard } from './trust_card';

/** A node of the tree. */
export type Node =
  | { type: 'changes'; gate: GateInfo; view: GateReadResult | undefined }
  | { type: 'equal'; key: string; items: Item[]; oldText: string }
  | { type: 'file'; gateId: string; file: GateFile; items: Item[] }
  | { type: 'hunk'; item: Item; named: boolean }
  | { type: 'command'; gates: GateInfo[] }
  | { type: 'question'; gate: GateInfo }
  | { type: 'approved' }
  | { type: 'applied'; change: AppliedChange };

export function proposalItem(gate: GateInfo, view: GateReadResult | undefined): vscode.TreeItem {
  const items = view === undefined ? [] : itemsOf(view).filter(isWaiting);
  const pending = items.filter((item) => item.status === 'pending').length;
  const stale = items.length - pending;
  const files = new Set(items.map((item) => item.uri)).size;
  const item = new vscode.TreeItem(gate.title, vscode.TreeItemCollapsibleState.Expanded);
  item.id = gate.gateId;
  item.description = [plural(pending, 'hunk'), plural(files, 'file'), stale > 0 ? `${stale} out of date` : '']
    .filter(Boolean)
    .join(' · ');
  item.iconPath = riskIcon(gate.risk, 'git-pull-request');
  item.contextValue = `changes ${contextOf(items)}`;
  if (view !== undefined) item.tooltip = markdown(proposalCard(view));
  item.accessibilityInformation = { label: `Proposal ${gate.title}, ${String(item.description)}, ${gate.risk} risk` };
  return item;
}

export function fileItem({ gateId, file, items }: Extract<Node, { type: 'file' }>): vscode.TreeItem {
  const uri = vscode.Uri.parse(file.uri);
  const only = items.length === 1 && items[0]!.kind !== 'text' ? items[0] : undefined;
  const item = new vscode.TreeItem(
    uri,
    only ? vscode.TreeItemCollapsibleState.None : vscode.TreeItemCollapsibleState.Expanded,
  );
  item.id = `${gateId}/${file.uri}`;
  item.label = baseName(file.uri);
  const what = {
    create: 'new file',
    delete: 'delete',
    rename: `renamed from ${baseName(file.oldUri ?? '')}`,
    modify: '',
  }[file.operation];
  item.description = [what, only ? sizeOf(only) : '', folderOf(uri)].filter(Boolean).join(' · ');
  item.iconPath = vscode.ThemeIcon.File;
  item.contextValue = `file ${contextOf(items)}`;
  item.command = {
    command: 'selfloop.tree.open',
    title: 'Open',
    arguments: [{ type: 'file', gateId, file, items } satisfies Node],
  };
  const count = plural(items.length, 'hunk');
  item.tooltip = `${vscode.workspace.asRelativePath(uri)}\n${[what, count].filter(Boolean).join(', ')}`;
  item.accessibilityInformation = { label: `${item.label}, ${item.description}, ${count}` };
  return item;
}

export function hunkItem(hunk: Item, isNamed: boolean): vscode.TreeItem {
  const line = `${hunk.range.start.line + 1}`;
  const what = hunk.kind === 'text' ? firstLine(hunk.newText, 60) || 'remove' : sizeOf(hunk);
  const item = new vscode.TreeItem(isNamed ? `${baseName(hunk.uri)}:${line}` : `${line}: ${what}`);
  item.id = `${hunk.gateId}/${hunk.hunkId}${isNamed ? '/equal' : ''}`;
  const folder = isNamed ? folderOf(vscode.Uri.parse(hunk.uri)) : '';
  item.description =
    hunk.status === 'stale' ? `out of date: ${hunk.reason ?? ''}` : [sizeOf(hunk), folder].filter(Boolean).join(' · ');
  const shape =
    hunk.kind !== 'text'
      ? 'diff'
      : hunk.removed === 0
        ? 'diff-added'
        : hunk.added === 0
          ? 'diff-removed'
          : 'diff-modified';
  item.iconPath =
    hunk.status === 'stale' ? icon('history', 'descriptionForeground') : riskIcon(hunk.risk, shape, shapeColor(shape));
  item.contextValue = `hunk ${contextOf([hunk])}`;
  item.tooltip = markdown(hunkCard(hunk, ''));
  item.command = {
    command: 'selfloop.tree.open',
    title: 'Open',
    arguments: [{ type: 'hunk', item: hunk, named: isNamed } satisfies Node],
  };
  const where = `${baseName(hunk.uri)} line ${line}`;
  const said = hunk.status === 'stale' ? String(item.description) : `${hunk.removed} lines become ${hunk.added}`;
  item.accessibilityInformation = {
    label: `${where}: ${what}, ${said}`,
  };
  return item;
}

export function equalItem({ key, items, oldText }: Extract<Node, { type: 'equal' }>): vscode.TreeItem {
  const files = new Set(items.map((one) => one.uri)).size;
  const first = items[0]!;
  const what = firstLine(first.newText, 50) || `remove ${firstLine(oldText, 40)}`;
  const item = new vscode.TreeItem(`${items.length} equal changes: ${what}`, vscode.TreeItemCollapsibleState.Collapsed);
  item.id = `equal/${key}`;
  item.description = `${plural(files, 'file')} · ${sizeOf(first)} each`;
  item.iconPath = icon('layers');
  item.contextValue = 'equal hunk pending';
  const diff = [
    ...(oldText === '' ? [] : oldText.split('\n').map((line) => `-${line}`)),
    ...first.newText
      .split('\n')
      .slice(0, 12)
      .map((line) => `+${line}`),
  ];
  item.tooltip = markdown(
    `**The same ${plural(items.length, 'time')} in ${plural(files, 'file')}:**\n\n${fenced(diff.join('\n'), 'diff')}`,
  );
  item.accessibilityInformation = { label: `${items.length} equal changes in ${files} files: ${what}` };
  return item;
}

export function commandItem(gates: readonly GateInfo[]): vscode.TreeItem {
  const gate = gates[0]!;
  const subject = commandOf(gate);
  const label = `Run: ${firstLine(subject?.shown ?? gate.title, 120)}`;
  const item = new vscode.TreeItem(gates.length > 1 ? `${label} (${gates.length} times)` : label);
  item.id = `command/${gate.gateId}`;
  item.description = subject === undefined ? '' : commandFacts(subject);
  item.iconPath = riskIcon(gate.risk, 'terminal');
  const canAlways = gate.options.some((option) => option.kind === 'allow_always');
  item.contextValue = `command pending${canAlways ? ' always' : ''}`;
  item.tooltip = markdown(commandCard(gate));
  item.command = {
    command: 'selfloop.tree.open',
    title: 'Open',
    arguments: [{ type: 'command', gates: [...gates] } satisfies Node],
  };
  item.accessibilityInformation = { label: `${label}, ${item.description}, ${gate.risk} risk` };
  return item;
}

/** What a loop asks, to send something or for more authority: it is read, and decided, on a page of its own. */
export function questionItem(gate: GateInfo): vscode.TreeItem {
  const item = new vscode.TreeItem(visible(firstLine(gate.title, 120)));
  item.id = `question/${gate.gateId}`;
  item.iconPath = riskIcon(gate.risk, 'question');
  item.contextValue = 'question';
  item.tooltip = visible(gate.description ?? gate.title);
  item.command = { command: 'selfloop.loops.review', title: 'Open', arguments: [gate.gateId] };
  item.accessibilityInformation = { label: `A loop asks: ${gate.title}, ${gate.risk} risk` };
  return item;
}

export function appliedItem(change: AppliedChange): vscode.TreeItem {
  const item = new vscode.TreeItem(change.title.replace(/ \(\d+ files?\)$/, ''));
  item.id = `applied/${change.gateId}`;
  item.description = change.files.length === 1 ? baseName(change.files[0]!) : plural(change.files.length, 'file');
  item.iconPath = icon('check', 'testing.iconPassed');
  item.contextValue = 'applied';
  item.tooltip = change.files.map((uri) => vscode.workspace.asRelativePath(vscode.Uri.parse(uri))).join('\n');
  item.accessibilityInformation = { label: `Approved: ${change.title}, ${item.description}` };
  return item;
}

export function isWaiting(item: Item): boolean {
  return item.status === 'pending' || item.status === 'stale';
}

function contextOf(items: readonly Item[]): string {
  return [
    items.some((item) => item.status === 'pending') ? 'pending' : '',
    items.some((item) => item.status === 'stale') ? 'stale' : '',
  ]
    .filter(Boolean)
    .join(' ');
}

function baseName(uri: string): string {
  return vscode.Uri.parse(uri).path.split('/').at(-1) ?? uri;
}

function folderOf(uri: vscode.Uri): string {
  const path = vscode.workspace.asRelativePath(uri);
  return path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '';
}

export function icon(name: string, color?: string): vscode.ThemeIcon {
  return color === undefined ? new vscode.ThemeIcon(name) : new vscode.ThemeIcon(name, new vscode.ThemeColor(color));
}

function riskIcon(risk: GateInfo['risk'], usual: string, color?: string): vscode.ThemeIcon {
  return risk === 'high' ? icon('warning', 'list.warningForeground') : icon(usual, color);
}

function shapeColor(shape: string): string | undefined {
  return {
    'diff-added': 'gitDecoration.addedResourceForeground',
    'diff-removed': 'gitDecoration.deletedResourceForeground',
    'diff-modified': 'gitDecoration.modifiedResourceForeground',
  }[shape];
}

function markdown(text: string): vscode.MarkdownString {
  return new vscode.MarkdownString(text, true);
}
