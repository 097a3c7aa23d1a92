// What can stand in the way of an answer. Anything else that is thrown is a mistake of this program: "failed".

/** The input is malformed: no implementation may answer it. */
export class Refused extends Error {}

/** The input is legal, but this program does not offer it. */
export class NotSupported extends Error {}

/** Refuse unless something holds. */
export function demand(holds: boolean, reason: string): asserts holds {
  if (!holds) throw new Refused(reason);
}
