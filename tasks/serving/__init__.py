"""A registered model that answers.

served_model.py  what MLflow runs when a registered model is loaded
"""
