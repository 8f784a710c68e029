"""What a person looks at after a run or an ablation: tables and figures, drawn from its files."""
