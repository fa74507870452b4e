/** What `work` gives, or `instead` when it fails or takes longer than `ms`: a page must not wait for a part that is away. */
export const within = async <T, U>(ms: number, work: () => Promise<T>, instead: (error: unknown) => U): Promise<T | U> => {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work(), late]);
  } catch (error) {
    return instead(error);
  } finally {
    clearTimeout(timer);
  }
};
