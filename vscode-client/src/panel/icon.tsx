// A codicon; it says nothing to a screen reader, the text beside it does.

export function Icon({ name, spin = false }: { name: string; spin?: boolean }) {
  return <i class={`codicon codicon-${name}${spin ? ' spin' : ''}`} aria-hidden="true" />;
}
