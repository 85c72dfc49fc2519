//! A bounded set and map that forget what was used longest ago. Order of use is a counter, so two nodes given the same
//! calls forget the same entries.

use std::collections::BTreeMap;

/// At most `bound` keys with their values; a full one forgets the least recently inserted or touched.
#[derive(Debug)]
pub struct Lru<K, V> {
    bound: usize,
    clock: u64,
    values: BTreeMap<K, (u64, V)>,
    uses: BTreeMap<u64, K>,
}

impl<K: Ord + Copy, V> Lru<K, V> {
    /// An empty one of at most `bound` entries.
    pub fn new(bound: usize) -> Lru<K, V> {
        Lru {
            bound,
            clock: 0,
            values: BTreeMap::new(),
            uses: BTreeMap::new(),
        }
    }

    /// Sets the value of a key and makes it the most recent one.
    pub fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        while self.values.len() >= self.bound {
            let Some((_, oldest)) = self.uses.pop_first() else {
                return;
            };
            self.values.remove(&oldest);
        }
        self.clock += 1;
        self.uses.insert(self.clock, key);
        self.values.insert(key, (self.clock, value));
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The value of a key; the order of use stays.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    /// Whether the key is there; if so it becomes the most recent one.
    pub fn touch(&mut self, key: &K) -> bool {
        let Some((used, _)) = self.values.get_mut(key) else {
            return false;
        };
        self.clock += 1;
        self.uses.remove(used);
        *used = self.clock;
        self.uses.insert(self.clock, *key);
        true
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (used, value) = self.values.remove(key)?;
        self.uses.remove(&used);
        Some(value)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.values.clear();
        self.uses.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_key_goes_first() {
        let mut lru = Lru::new(3);
        for key in 0..3 {
            lru.insert(key, key * 10);
        }
        assert!(lru.touch(&0), "0 was used again");
        lru.insert(3, 30);
        assert_eq!(
            (lru.get(&0), lru.get(&1), lru.get(&3), lru.values.len()),
            (Some(&0), None, Some(&30), 3),
            "B2: at the bound the least recently used entry is dropped"
        );
        lru.insert(2, 21);
        lru.insert(4, 40);
        assert_eq!(
            (lru.get(&2), lru.get(&0)),
            (Some(&21), None),
            "an insert counts as a use"
        );
        assert_eq!(lru.remove(&2), Some(21));
        lru.clear();
        assert_eq!((lru.values.len(), lru.touch(&3)), (0, false));
        let mut none: Lru<u8, ()> = Lru::new(0);
        none.insert(1, ());
        assert_eq!(none.values.len(), 0, "a bound of 0 keeps nothing");
    }
}
