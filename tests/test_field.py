"""Inputs that people brought (public issue threads, public data sets), by number, and the test that makes each one and says what is right.

The numbers are those of the list they were collected in; each test makes its own files.
"""
import ast
from pathlib import Path

import pytest

TESTS = {
    1: 'annotations::test_01_roboflow', 2: 'annotations::test_02_backslashes', 4: 'annotations::test_04_subsets_whose_ids_restart',
    5: 'annotations::test_05_masks_are_labels', 6: 'annotations::test_06_08_annotation_ids_do_not_matter',
    8: 'annotations::test_06_08_annotation_ids_do_not_matter', 9: 'annotations::test_09_a_byte_order_mark', 12: 'annotations::test_12_negatives',
    14: 'annotations::test_14_xml_of_own_labels', 15: 'annotations::test_15_cvat', 16: 'annotations::test_16_lists_of_ids',
    18: 'tables::test_18_quoted_commas', 19: 'tables::test_19_space_separated_tags', 21: 'tables::test_21_one_hot_columns',
    22: 'tables::test_22_posters', 23: 'tables::test_23_a_row_per_label', 24: 'tables::test_24_excel_semicolons', 27: 'tables::test_27_split_column',
    28: 'tables::test_28_train_val_test_folders', 29: 'tables::test_29_hidden_checkpoints', 32: 'names::test_own_folders_of_any_name',
    34: 'own::test_three_images_a_label', 35: 'own::test_a_single_label', 36: 'own::test_training_without_a_split_takes_all_labels',
    37: 'words::test_sparse_vectors_are_named', 38: 'words::test_files_saved_by_windows', 42: 'prepare::test_heic_names_its_remedy',
    43: 'tables::test_43_names', 44: 'annotations::test_44_45_own_labels_keep_their_names', 45: 'own::test_labels_that_coco_has_too_stay',
    47: 'tables::test_47_folders_of_any_ending', 48: 'tables::test_48_same_folder_two_cases', 52: 'annotations::test_52_lvis',
    54: 'tables::test_54_ragged_rows', 56: 'own::test_missing_and_broken_images', 57: 'own::test_a_split_of_test_labels_only',
    59: 'annotations::test_59_createml', 61: 'protocols::test_one_run_has_no_interval', 62: 'support::test_labels_of_any_kind_give_the_same_scores',
    63: 'features::test_one_image_of_any_kind', 65: 'words::test_labels_as_people_write_them', 66: 'prepare::test_deep_greys_fill_their_range',
    68: 'evaluate::test_records_of_labels', 69: 'own::test_from_inside_the_folder', 71: 'own::test_a_fine_tuned_run_by_its_module',
    72: 'tools::test_a_foreign_environment_is_left_alone'}

@pytest.mark.parametrize('number', TESTS)
def test_each_input_has_a_test(number):
    file, name = TESTS[number].split('::')
    tree = ast.parse((Path(__file__).parent/f'test_{file}.py').read_text(encoding='utf-8'))
    assert name in {f.name for f in tree.body if isinstance(f, ast.FunctionDef)}
