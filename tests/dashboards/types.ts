import type { AnnotationQuery, Dashboard } from '@grafana/schema';

// JSON has the words of an enum, which TypeScript does not take for its members.
type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
// What Grafana's data source for Prometheus reads of an annotation's query; the schema knows no data source's own.
type Annotation = AnnotationQuery & { expr: string; titleFormat: string; textFormat: string; tagKeys: string };
type Strict = Plain<Omit<Dashboard, 'annotations'> & { annotations: { list: Annotation[] } }>;
