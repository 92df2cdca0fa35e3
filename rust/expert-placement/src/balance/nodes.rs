//! What nodes allow: replicas spread over them or, with groups of experts, kept at home. SPEC.md, "Nodes and groups".
//!
//! Where routing chooses among groups of experts, a token's experts are on few nodes if each group is on one. That node is
//! its home: every expert keeps a replica there, and what replicas elsewhere carry, the load off node, has a limit.

use super::shape::Shape;
use super::state::{NONE, State};
use crate::placement::EMPTY;

/// The node where each expert of a layer is at home, and how much load may be served elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Homes {
    of_expert: Vec<usize>,
    limit: f64,
}

impl Homes {
    /// How much load may be served elsewhere.
    pub(crate) const fn limit(&self) -> f64 {
        self.limit
    }

    /// The home of an expert.
    pub(crate) fn of(&self, expert: u32) -> usize {
        self.of_expert[expert as usize]
    }

    /// Gives every group of equally many consecutive experts a home, so that nodes are as evenly busy as whole groups
    /// allow: the heaviest group first, to the node that is done first with it, and then exchanges between nodes. A group
    /// that fits no node any more is at home on the node with the most room.
    pub(crate) fn choose(weights: &[f64], num_groups: usize, limit: f64, shape: &Shape) -> Self {
        let size = weights.len() / num_groups;
        let sums: Vec<f64> = weights.chunks_exact(size).map(|group| group.iter().sum()).collect();
        let mut nodes = vec![Node::default(); shape.num_nodes];
        for bin in &shape.bins {
            nodes[bin.node].room += bin.room;
            nodes[bin.node].speed += bin.speed;
        }
        let mut order: Vec<usize> = (0..num_groups).collect();
        order.sort_by_key(|group| (!sums[*group].to_bits(), *group));
        let mut home = vec![0; num_groups];
        for group in order {
            let done = |node: &Node| (node.load + sums[group]) / node.speed;
            let fitting = (0..nodes.len()).filter(|node| nodes[*node].room >= size);
            let first_done = fitting.min_by(|left, right| done(&nodes[*left]).total_cmp(&done(&nodes[*right])));
            // Of equally much room the lower node.
            let roomiest = || (0..nodes.len()).rev().max_by_key(|node| nodes[*node].room).unwrap_or(0);
            home[group] = first_done.unwrap_or_else(roomiest);
            let node = &mut nodes[home[group]];
            node.load += sums[group];
            node.room = node.room.saturating_sub(size);
        }
        exchange_groups(&sums, size, &mut nodes, &mut home);
        Self { of_expert: (0..weights.len()).map(|expert| home[expert / size]).collect(), limit }
    }

    /// Homes on the nodes that serve most of each group's load already, by the shares of a row; of equals the lower node.
    pub(crate) fn of_row(shares: &[f64], num_groups: usize, limit: f64, shape: &Shape, row: &[i32]) -> Self {
        let size = shares.len() / num_groups;
        // Where there is no load, the most replicas count.
        let mut served = vec![(0.0, 0_usize); num_groups * shape.num_nodes];
        for (node, expert) in held(shape, row) {
            let (load, replicas) = &mut served[expert / size * shape.num_nodes + node];
            *load += shares[expert];
            *replicas += 1;
        }
        let mut of_expert = Vec::with_capacity(shares.len());
        for served in served.chunks_exact(shape.num_nodes) {
            let mut home = 0;
            for (node, most) in served.iter().enumerate() {
                if *most > served[home] {
                    home = node;
                }
            }
            of_expert.resize(of_expert.len() + size, home);
        }
        Self { of_expert, limit }
    }

    /// Whether every expert has a replica at home.
    pub(crate) fn hold_all(&self, shape: &Shape, state: &State) -> bool {
        (0_u32..).zip(&self.of_expert).all(|(expert, home)| state.on_node(expert, *home, shape) > 0)
    }

    /// The load that a row serves away from home.
    pub(crate) fn off_node(&self, shares: &[f64], shape: &Shape, row: &[i32]) -> f64 {
        let strangers = held(shape, row).filter(|(node, expert)| self.of_expert[*expert] != *node);
        strangers.fold(0.0, |sum, (_, expert)| sum + shares[expert])
    }
}

/// The node and the expert of every slot of a row that holds one.
fn held<'a>(shape: &'a Shape, row: &'a [i32]) -> impl Iterator<Item = (usize, usize)> + 'a {
    shape.bins.iter().flat_map(|bin| {
        let entries = row[bin.start..bin.start + bin.slots].iter().filter(|entry| **entry != EMPTY);
        entries.map(|entry| (bin.node, *entry as usize))
    })
}

#[derive(Clone, Debug, Default)]
struct Node {
    load: f64,
    speed: f64,
    room: usize,
}

/// Exchanges groups between nodes, or gives one away where there is room, as long as that lets the busiest node be done
/// earlier.
fn exchange_groups(sums: &[f64], size: usize, nodes: &mut [Node], home: &mut [usize]) {
    // Each step leaves both nodes below the old largest time; the bound is a safeguard of time.
    for _ in 0..8 * sums.len() {
        let time = |node: &Node, change: f64| if node.speed > 0.0 { (node.load + change) / node.speed } else { 0.0 };
        let mut hot = 0;
        for node in 0..nodes.len() {
            if time(&nodes[node], 0.0) > time(&nodes[hot], 0.0) {
                hot = node;
            }
        }
        let mut best = time(&nodes[hot], 0.0) * (1.0 - 1e-12);
        let mut step = None;
        for given in (0..sums.len()).filter(|group| home[*group] == hot) {
            let exchanges = (0..sums.len()).filter(|group| home[*group] != hot).map(|group| (home[group], Some(group)));
            let gifts =
                (0..nodes.len()).filter(|node| *node != hot && nodes[*node].room >= size).map(|node| (node, None));
            for (cold, taken) in exchanges.chain(gifts) {
                let moved = sums[given] - taken.map_or(0.0, |group: usize| sums[group]);
                let later = time(&nodes[hot], -moved).max(time(&nodes[cold], moved));
                if later < best {
                    best = later;
                    step = Some((given, cold, taken, moved));
                }
            }
        }
        let Some((given, cold, taken, moved)) = step else { return };
        nodes[hot].load -= moved;
        nodes[cold].load += moved;
        home[given] = cold;
        if let Some(taken) = taken {
            home[taken] = hot;
        } else {
            nodes[cold].room -= size;
            nodes[hot].room += size;
        }
    }
}

/// Whether two ranks may exchange these items.
pub(crate) fn may_exchange(
    (hot, gives): (usize, &[u32]),
    (cold, takes): (usize, &[u32]),
    shape: &Shape,
    state: &State,
) -> bool {
    let (from, to) = (shape.bins[hot].node, shape.bins[cold].node);
    if from == to {
        return true;
    }
    let ways = [(gives, from, to), (takes, to, from)];
    let mut away = 0.0;
    for (items, from, to) in ways {
        for &item in items.iter().filter(|item| **item != NONE) {
            match shape.homes.as_ref().map(|homes| homes.of(item)) {
                // No expert's replicas may come together on fewer nodes.
                None => {
                    if state.on_node(item, from, shape) == 1 && state.on_node(item, to, shape) > 0 {
                        return false;
                    }
                }
                Some(home) if home == from => {
                    if state.on_node(item, from, shape) < 2 {
                        return false;
                    }
                    away += state.share(item);
                }
                Some(home) if home == to => away -= state.share(item),
                Some(_) => {}
            }
        }
    }
    is_within(away, shape, state)
}

/// Whether a replica of `new`, or nothing, may come to a rank in the place of one of `old`, or of nothing.
pub(crate) fn may_replace(old: u32, new: u32, bin: usize, weights: &[f64], shape: &Shape, state: &State) -> bool {
    if shape.num_nodes == 1 {
        return true;
    }
    let node = shape.bins[bin].node;
    let Some(homes) = &shape.homes else {
        // Of the nodes that have a rank for one more.
        let fewest = |expert| {
            let nodes = (0..shape.num_nodes).map(|node| (state.on_node(expert, node, shape), shape.bins_of_node[node]));
            nodes.filter(|(held, bins)| held < bins).map(|(held, _)| held).min().unwrap_or(0)
        };
        let most = |expert| (0..shape.num_nodes).map(|node| state.on_node(expert, node, shape)).max().unwrap_or(0);
        return (new == NONE || state.on_node(new, node, shape) == fewest(new))
            && (old == NONE || state.on_node(old, node, shape) > 1 || most(old) == 1);
    };
    let away = |expert: u32, replicas: u32, at_home: usize| {
        weights[expert as usize] * (f64::from(replicas) - at_home as f64) / f64::from(replicas)
    };
    let mut change = 0.0;
    for (expert, comes) in [(new, true), (old, false)] {
        if expert == NONE {
            continue;
        }
        let (replicas, at_home) = (state.counts[expert as usize], state.on_node(expert, homes.of(expert), shape));
        let is_home = homes.of(expert) == node;
        if is_home && !comes && at_home < 2 {
            return false;
        }
        let (then, home_then) = if comes {
            (replicas + 1, at_home + usize::from(is_home))
        } else {
            (replicas - 1, at_home - usize::from(is_home))
        };
        change += away(expert, then, home_then) - away(expert, replicas, at_home);
    }
    is_within(change, shape, state)
}

/// Whether the load off node may change by so much.
fn is_within(change: f64, shape: &Shape, state: &State) -> bool {
    change <= 0.0 || shape.homes.as_ref().is_none_or(|homes| state.off_node() + change <= homes.limit)
}
