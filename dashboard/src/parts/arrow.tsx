// The head of an arrow, for the ends of lines.

interface Props {
  id: string;
  size: number;
  class?: string;
}

export function Arrow({ id, size, class: more = "" }: Props) {
  return (
    <marker id={id} viewBox="0 0 8 8" refX="7" refY="4" markerWidth={size} markerHeight={size} orient="auto">
      <path class={`tip ${more}`.trim()} d="M0 0 8 4 0 8z" />
    </marker>
  );
}
