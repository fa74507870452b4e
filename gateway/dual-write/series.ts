/** All facts about one subject go to one place of the stream, whoever published them. */
export type Subject = { readonly name: string; readonly lane: number };

/** What one sequence counts. One object for each, so that comparing two rows costs nothing. */
export type Series = {
  readonly source: string;
  readonly subject: Subject;
  readonly epoch: number;
  /** The last sequence that this process put on the stream; null = not known. */
  sent: number | null;
};

/** What was sent lately. Forgets everything once it holds more than its limit: then the store is asked. */
export type SeriesBook = {
  /** `place` is source and epoch, separated by a tab. */
  readonly of: (place: string, subject: string, lane: number) => Series;
  /** Called between rounds. */
  readonly trim: () => void;
};

export const createSeriesBook = (limit: number): SeriesBook => {
  let places = new Map<string, Map<string, Series>>();
  let subjects = new Map<string, Subject>();
  let lastPlace = '';
  let lastMap: Map<string, Series> | undefined;
  let size = 0;

  const mapOf = (place: string): Map<string, Series> => {
    if (lastMap !== undefined && lastPlace === place) return lastMap;
    const map = places.get(place) ?? new Map<string, Series>();
    places.set(place, map);
    lastPlace = place;
    lastMap = map;
    return map;
  };
  return {
    of: (place, name, lane) => {
      const map = mapOf(place);
      const known = map.get(name);
      if (known) return known;
      const subject = subjects.get(name) ?? { name, lane };
      subjects.set(name, subject);
      const tab = place.lastIndexOf('\t');
      const series: Series = { source: place.slice(0, tab), subject, epoch: Number(place.slice(tab + 1)), sent: null };
      map.set(name, series);
      size += 1;
      return series;
    },
    trim: () => {
      if (size <= limit) return;
      places = new Map();
      subjects = new Map();
      lastMap = undefined;
      size = 0;
    },
  };
};
