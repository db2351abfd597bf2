// A text of the model's as Markdown, block by block.
//
// Invariant: a block is drawn anew only when its own source has changed; what is longer than the panel draws opens as
// a document.

import { memo } from 'preact/compat';
import { useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import { Blocks, definitions, type References } from './blocks';
import { post } from './host';
import { render } from './markdown';
import { cap, plain } from './text';

interface Props {
  text: string;
  streaming: boolean;
}

export const Prose = memo(function Prose({ text, streaming }: Props) {
  const blocks = useRef<Blocks | undefined>(undefined);
  blocks.current ??= new Blocks();
  const { shown, cut } = useMemo(() => {
    const part = cap(text);
    return { shown: plain(part.shown), cut: part.cut };
  }, [text]);
  const found = blocks.current.update(shown);
  const references = useMemo(() => (streaming ? NONE : definitions(shown)), [streaming, shown]);
  const last = found.length - 1;
  return (
    <div class="prose">
      {found.map((block, place) => (
        <Rendered
          key={block.key}
          source={block.source}
          references={references}
          streaming={streaming && place === last}
        />
      ))}
      {cut && <Rest text={text} language="markdown" />}
    </div>
  );
});

const NONE: References = {};

interface RenderedProps {
  source: string;
  references: References;
  streaming: boolean;
}

const Rendered = memo(
  function Rendered({ source, references, streaming }: RenderedProps) {
    const box = useRef<HTMLDivElement>(null);
    useLayoutEffect(
      () => box.current?.replaceChildren(render(source, references, streaming)),
      [source, references, streaming],
    );
    return <div ref={box} />;
  },
  (before, after) =>
    before.source === after.source &&
    before.streaming === after.streaming &&
    (before.references === after.references || Object.keys(after.references).length === 0),
);

/** Says that a text goes on, and opens the whole of it. */
export function Rest({ text, language }: { text: string; language: string }) {
  const size =
    text.length >= 1e6 ? `${(text.length / 1e6).toFixed(1)} million` : `${Math.round(text.length / 1000)} thousand`;
  return (
    <p class="rest">
      Only the beginning is shown; the whole has {size} characters.{' '}
      <button type="button" class="link" onClick={() => post({ type: 'document', text, language })}>
        Show the rest
      </button>
    </p>
  );
}
