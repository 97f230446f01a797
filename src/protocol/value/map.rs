//! [`Map`]: a `dict` with string keys.

use std::borrow::Cow;

use indexmap::IndexMap;

use super::{Value, known};

/// A key; the names that every message bears are not copied for each of them.
pub(in crate::protocol) type Key = Cow<'static, str>;

/// A `dict` with string keys that keeps its order, as Python's does.
///
/// Two maps are equal if they hold equal values under the same keys, in whatever order.
#[derive(Debug, Clone, Default)]
pub struct Map(Entries);

/// A message's maps are small, and searching a short vector costs less than hashing; a large map gets an index, so that
/// a hostile one is not searched in quadratic time.
#[derive(Debug, Clone)]
enum Entries {
    Few(Vec<(Key, Value)>),
    Many(Box<IndexMap<Key, Value, ahash::RandomState>>),
}

impl Default for Entries {
    fn default() -> Self {
        Entries::Few(Vec::new())
    }
}

/// Up to this many keys are searched one by one.
const FEW: usize = 32;

impl Map {
    /// An empty map.
    pub const fn new() -> Self {
        Map(Entries::Few(Vec::new()))
    }

    /// An empty map with room for `capacity` keys.
    pub fn with_capacity(capacity: usize) -> Self {
        match capacity {
            0..=FEW => Map(Entries::Few(Vec::with_capacity(capacity))),
            _ => Map(Entries::Many(Box::new(IndexMap::with_capacity_and_hasher(capacity, Default::default())))),
        }
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match &self.0 {
            Entries::Few(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            Entries::Many(entries) => entries.get(key),
        }
    }

    /// The value under `key`, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        match &mut self.0 {
            Entries::Few(entries) => entries.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value),
            Entries::Many(entries) => entries.get_mut(key),
        }
    }

    /// Sets `key` and returns what was there; a key that is there keeps its place.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        self.set(Cow::Owned(key.into()), value.into())
    }

    fn set(&mut self, key: Key, value: Value) -> Option<Value> {
        match &mut self.0 {
            Entries::Few(entries) => match entries.iter_mut().find(|(name, _)| *name == key) {
                Some((_, old)) => Some(std::mem::replace(old, value)),
                None => {
                    self.push_new(key, value);
                    None
                }
            },
            Entries::Many(entries) => entries.insert(key, value),
        }
    }

    /// The value under `key`, which is set to what `default` returns if it is not there.
    pub fn get_or_insert_with(&mut self, key: &str, default: impl FnOnce() -> Value) -> &mut Value {
        if !self.contains_key(key) {
            self.push_new(Cow::Owned(key.to_owned()), default());
        }
        self.get_mut(key).expect("the key was found or has just been set")
    }

    /// Sets a key of which the caller knows that it is not there.
    fn push_new(&mut self, key: Key, value: Value) {
        match &mut self.0 {
            Entries::Few(entries) if entries.len() < FEW => entries.push((key, value)),
            Entries::Few(entries) => {
                let mut many: IndexMap<_, _, _> = std::mem::take(entries).into_iter().collect();
                many.insert(key, value);
                self.0 = Entries::Many(Box::new(many));
            }
            Entries::Many(entries) => {
                entries.insert(key, value);
            }
        }
    }

    /// A map of pairs that the caller knows to be distinct; ends with the first error.
    pub(crate) fn of_distinct<'a, E>(
        capacity: usize,
        pairs: impl Iterator<Item = Result<(&'a str, Value), E>>,
    ) -> Result<Self, E> {
        let mut map = Map::with_capacity(capacity);
        for pair in pairs {
            let (key, value) = pair?;
            let key = known(key).map_or_else(|| Cow::Owned(key.to_owned()), Cow::Borrowed);
            map.push_new(key, value);
        }
        Ok(map)
    }

    /// Takes `key` out, keeping the order of the others.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        match &mut self.0 {
            Entries::Few(entries) => {
                let at = entries.iter().position(|(name, _)| name == key)?;
                Some(entries.remove(at).1)
            }
            Entries::Many(entries) => entries.shift_remove(key),
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Entries::Few(entries) => entries.len(),
            Entries::Many(entries) => entries.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `key` is there.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        let (few, many) = match &self.0 {
            Entries::Few(entries) => (Some(entries.iter()), None),
            Entries::Many(entries) => (None, Some(entries.iter())),
        };
        Either { few: few.map(|few| few.map(|(k, v)| (&**k, v))), many: many.map(|many| many.map(|(k, v)| (&**k, v))) }
    }

    /// Keys and values, in order, the values to be changed.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Value)> {
        let (few, many) = match &mut self.0 {
            Entries::Few(entries) => (Some(entries.iter_mut()), None),
            Entries::Many(entries) => (None, Some(entries.iter_mut())),
        };
        Either { few: few.map(|few| few.map(|(k, v)| (&**k, v))), many: many.map(|many| many.map(|(k, v)| (&**k, v))) }
    }

    /// The pairs, in order, their keys not copied.
    pub(in crate::protocol) fn into_pairs(self) -> impl ExactSizeIterator<Item = (Key, Value)> + use<> {
        self.pairs()
    }

    fn pairs(self) -> Pairs {
        match self.0 {
            Entries::Few(entries) => Either { few: Some(entries.into_iter()), many: None },
            Entries::Many(entries) => Either { few: None, many: Some(entries.into_iter()) },
        }
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, in order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> {
        self.iter().map(|(_, value)| value)
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

/// One of two iterators over the same items.
struct Either<A, B> {
    few: Option<A>,
    many: Option<B>,
}

impl<T, A: Iterator<Item = T>, B: Iterator<Item = T>> Iterator for Either<A, B> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.few {
            Some(few) => few.next(),
            None => self.many.as_mut()?.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match (&self.few, &self.many) {
            (Some(few), _) => few.size_hint(),
            (None, Some(many)) => many.size_hint(),
            (None, None) => (0, Some(0)),
        }
    }
}

impl<T, A: ExactSizeIterator<Item = T>, B: ExactSizeIterator<Item = T>> ExactSizeIterator for Either<A, B> {}

/// The pairs of a [`Map`], in order.
pub struct IntoIter(Pairs);

type Pairs = Either<std::vec::IntoIter<(Key, Value)>, indexmap::map::IntoIter<Key, Value>>;

impl Iterator for IntoIter {
    type Item = (String, Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (key.into_owned(), value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for IntoIter {}

impl std::fmt::Debug for IntoIter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IntoIter").field("len", &self.len()).finish()
    }
}

impl IntoIterator for Map {
    type Item = (String, Value);
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter(self.pairs())
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut map = Map::new();
        map.extend(pairs);
        map
    }
}

impl<K: Into<String>, V: Into<Value>> Extend<(K, V)> for Map {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        for (key, value) in pairs {
            self.insert(key, value);
        }
    }
}

impl<K: Into<String>, V: Into<Value>, const N: usize> From<[(K, V); N]> for Map {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

/// Builds a [`Map`] from pairs whose keys are mostly different, as a parser meets them: most new keys are told from
/// those before by one bit, without a search.
#[derive(Default)]
pub(in crate::protocol) struct MapBuilder {
    map: Map,
    seen: u64,
}

impl MapBuilder {
    /// A builder with room for `capacity` keys.
    pub(in crate::protocol) fn new(capacity: usize) -> Self {
        MapBuilder { map: Map::with_capacity(capacity), seen: 0 }
    }

    /// Sets `key`; the last value of a repeated key wins and takes the first one's place, as in Python.
    pub(in crate::protocol) fn insert(&mut self, key: impl Into<Key>, value: Value) {
        let key = key.into();
        let bit = 1 << (fingerprint(key.as_bytes()) & 63);
        if self.seen & bit == 0 {
            self.seen |= bit;
            self.map.push_new(key, value);
        } else {
            self.map.set(key, value);
        }
    }

    pub(in crate::protocol) fn finish(self) -> Map {
        self.map
    }
}

/// A cheap number that tells the usual names of headers apart.
fn fingerprint(key: &[u8]) -> usize {
    let byte = |at: usize| key.get(at).copied().unwrap_or(0) as usize;
    key.len().wrapping_mul(7)
        ^ byte(0).wrapping_mul(5)
        ^ byte(key.len() / 2).wrapping_mul(11)
        ^ byte(key.len().wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: i64) -> Map {
        (0..count).map(|number| (number.to_string(), number)).collect()
    }

    #[test]
    fn order_and_values_survive_the_change_to_an_index() {
        for count in [0, 1, 31, 32, 33, 200] {
            let mut map = numbers(count);
            assert_eq!(map.len() as i64, count);
            assert!(map.iter().map(|(_, value)| value.clone()).eq((0..count).map(Value::Int)));
            assert!(map.clone().into_iter().map(|(key, _)| key).eq((0..count).map(|number| number.to_string())));
            assert_eq!(map.insert("0", "new").is_some(), count > 0);
            assert_eq!(map.iter().next(), Some(("0", &Value::from("new"))));
            map.remove("0");
            assert_eq!(map.get("0"), None);
        }
    }

    #[test]
    fn order_does_not_matter_to_equality() {
        let backwards: Map = (0..40).rev().map(|number| (number.to_string(), number)).collect();
        assert_eq!(numbers(40), backwards);
        assert_ne!(numbers(40), numbers(39));
    }

    #[test]
    fn a_builder_keeps_the_last_value_of_a_repeated_key() {
        let mut builder = MapBuilder::default();
        for (key, value) in [("a", 1), ("b", 2), ("a", 3)] {
            builder.insert(key, Value::Int(value));
        }
        assert_eq!(builder.finish().into_iter().collect::<Vec<_>>(), [("a".into(), 3.into()), ("b".into(), 2.into())]);
    }
}
