// What must outlive a reload, a crash of the browser and a restart of the server: answers that were not sent, and drafts.
// IndexedDB with strict durability: a promise resolves when the value is on disk. localStorage waits some seconds for that.

const NAME = "prefloop";
const STORES = ["answers", "drafts"];

/** The database; null where the browser has none to give, and then nothing outlives the page. */
const opened = new Promise((resolve) => {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => STORES.forEach((store) => request.result.createObjectStore(store));
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => resolve(null);
});

async function transact(store, mode, act) {
  const database = await opened;
  if (!database) return null;
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(store, mode, { durability: "strict" });
    const request = act(transaction.objectStore(store));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

export const keep = (store, key, value) => transact(store, "readwrite", (kept) => kept.put(value, key));
export const forget = (store, key) => transact(store, "readwrite", (kept) => kept.delete(key));
export const recall = (store, key) => transact(store, "readonly", (kept) => kept.get(key));
export const everything = async (store) => (await transact(store, "readonly", (kept) => kept.getAll())) ?? [];
