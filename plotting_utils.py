"""Figures of routing decisions: stateless functions from data to matplotlib figures.

Routing data is a `RoutingData` or a list of its entries (dicts with position, layer_routing, env_context, ...). Results
are the data frame of `tables.read_results`, learning curves those of `tables.read_metrics`. `expert_hidden_sizes`
(per layer, its experts' hidden sizes) lets legends say "GRU 16" instead of "expert 1".

    with page("column"):                          # 3.25 in wide; "page": 6.75 in; "screen": as the figure likes
        figure = plot_dependence(routing_data)
    numbers_of(figure)                            # the rows of the CSV that is saved beside it

Nothing here knows an environment or a notebook, and no figure is registered with pyplot, so none has to be closed.
"""

# ruff: noqa: F401  (this is the front door of the package `plotting`)
from plotting.cross_task import (
    CURVES,
    plot_expert_use,
    plot_learning_curves,
    plot_lesions,
    plot_lpc_against_difficulty,
    plot_lpc_alpha,
    plot_metrics_over_updates,
    plot_success_against_lpc,
)
from plotting.data import (
    GROUPINGS,
    GridInfo,
    NothingToShow,
    aggregate_routing_by_position,
    compute_grid_bounds,
    compute_grid_info,
    get_available_analyses,
    group_labels,
    group_routing_data,
    mission_type,
    room_labels_for_groups,
)
from plotting.dependence import (
    episode_counts,
    plot_conditional_means,
    plot_dependence,
    plot_relative_maps,
    routing_dependence,
    steps_clicked,
)
from plotting.heatmaps import (
    plot_grouped_routing,
    plot_lpc,
    plot_overall_routing,
    plot_side_by_side,
    render_lpc_heatmap,
    render_routing_heatmap,
)
from plotting.measures import (
    action_information,
    cell_measures,
    decision_measures,
    lpc_by_phase,
    lpc_correlations,
    plot_measure_correlations,
    plot_measures,
    plot_phases_by_alpha,
)
from plotting.pathways import (
    networks,
    pathway_figures,
    plot_along_training,
    plot_consistency,
    plot_cost_by_difficulty,
    plot_cost_change_by_difficulty,
    plot_decisions_of_tasks,
    plot_information,
    plot_lesions_by_difficulty,
    plot_phases_of_tasks,
    plot_price_of_pathways,
    plot_self_sufficiency,
    plot_task_pathways,
)
from plotting.steps import (
    OBJECT_KINDS,
    behaviours,
    object_distances,
    plot_episode,
    plot_mean_over_time,
    plot_routing_by_distance,
    plot_routing_entropy,
    plot_specialisation,
    plot_weight_histograms,
    routing_entropy,
)
from plotting.style import (
    EXPERT_CMAPS,
    EXPERT_COLORS,
    PAGES,
    TASK_COLORS,
    UNVISITED_COLOR,
    WALL_COLOR,
    expert_cmap,
    expert_color,
    expert_names,
    lesion_name,
    number_text,
    numbers_of,
    page,
)
from plotting.variables import ACTION_NAMES, distance_due, phases, step_variables
from results.paths import short_task
from results.pathways import (
    behaviour_information,
    classifier_accuracy,
    cluster_tasks,
    consistency,
    mean_routing,
    pathway_shares,
    task_information,
)
from results.statistics import (
    entropy_bits,
    explained_share,
    fisher_mean,
    kl_bits,
    means_over_episodes,
    mutual_information_bits,
    seed_agreement,
    smoothed,
    summarise_runs,
    wilson_interval,
)
